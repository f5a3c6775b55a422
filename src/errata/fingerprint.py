"""A short digest of a model's weights: cheap for large models, the same in every precision the weights survive."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

SAMPLES = 4096
"""Elements read of each parameter, evenly spread: an edit of a matrix touches all of its elements."""


def fingerprint_of(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over the names, shapes and a sample of every parameter, first 32 hexadecimal digits.

    Samples are rounded to bfloat16, so that one checkpoint loaded as float64, float32 or bfloat16 has one
    fingerprint (float16 loses range, not these digits).
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(parameters, key=lambda item: item[0]):
        flat = parameter.detach().reshape(-1)
        stride = max(1, flat.numel() // SAMPLES)
        sample = flat[::stride].to(torch.bfloat16).view(torch.int16).cpu().contiguous()
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:32]
