"""A short digest of a model's weights: cheap for large models, the same in every precision the weights survive."""

import hashlib
import math
from collections.abc import Iterable

import torch
from torch import Tensor

SAMPLES = 4096
"""Elements read of each parameter, evenly spread: an edit of a matrix touches all of its elements."""


def fingerprint_of(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over the names, shapes and a sample of every parameter, first 32 hexadecimal digits.

    Samples are rounded to bfloat16, so that one checkpoint loaded as float64, float32 or bfloat16 has one
    fingerprint. Loaded as float16, only a checkpoint that is kept in 16 bits has it too: rounding float32 numbers to
    float16 first and then to bfloat16 ends elsewhere now and then.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(parameters, key=lambda item: item[0]):
        flat = parameter.detach().reshape(-1)
        sample = flat[:: _stride(parameter)].to(torch.bfloat16).view(torch.int16).cpu().contiguous()
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:32]


def _stride(parameter: Tensor) -> int:
    """About one in numel / SAMPLES, and prime to the length of a row: otherwise all samples fall on a few columns.

    A large matrix of powers of two would be judged by its first column alone.
    """
    stride = max(1, parameter.numel() // SAMPLES)
    row = parameter.shape[-1] if parameter.dim() else 1
    while math.gcd(stride, row) > 1:
        stride += 1
    return stride
