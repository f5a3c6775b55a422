"""How far apart two correct programs may be: the rule behind every numeric tolerance of the tests.

Two programs that sum the same numbers in another order, with another number of threads or other instructions of the
processor, agree up to rounding. A chain of `terms` rounded operations has a relative error of about sqrt(terms) * u,
with the unit roundoff u = eps / 2 of the dtype; it stays below LAMBDA * sqrt(terms) * u with a probability of
1 - 2 exp(-LAMBDA^2 / 2), which is 1 - 3e-14 here (Higham & Mary 2019, "A New Approach to Probabilistic Rounding Error
Analysis", theorem 2.4). What follows a chain may amplify its error: the solution of a linear system by the condition
number of its matrix, a deep model by its layer norms. So

    tolerance = LAMBDA * (eps / 2) * sqrt(terms) * condition * scale

is the largest difference, in absolute numbers, between an array and the same array by another program; `scale` is its
largest element. What is bitwise the same (saved and loaded, applied and reverted, killed and resumed) is compared with
`torch.equal`; numbers that other people published are compared to the digits that they published.

A test that needs more than this rule gives for honest `terms` and `condition` has found a mistake.
"""

import math

import torch
from torch import Tensor

LAMBDA = 8.0
FORWARD = 2048
"""The rounded operations behind one activation of a tiny model: 4 blocks, each with sums over 32, 48, 96 and 128
inputs, softmax and norms."""
DEPTH = 4.0
"""How much the norms and the softmax of a tiny random model may amplify rounding up to its last block. Chosen to
cover what was observed, not derived."""
TRAINING = 64.0
"""How much a few steps of Adam may amplify a difference of the gradients: each step is divided by the gradient's size.
Chosen to cover what was observed, not derived."""
SOLVE = 6000.0
"""The condition number of lambda E[k k^T] + K K^T with second moments measured on a tiny model: 5,700 for GPT-2, 230
for Llama, 800 for Gemma 2."""
ISOTROPIC = 20.0
"""The same with the random second moments of `spread_cases`: at most 16.5."""
KEYS = 80.0
"""How much a solve amplifies rounding of the keys, whose errors lie where keys lie: about the root of `SOLVE`,
which is a reason and not a proof."""
RIDGED = 16.0
"""The same with a ridge of a tenth of the mean eigenvalue, which bounds the condition number by some 250: its root."""


def tolerance(dtype: torch.dtype, terms: float, condition: float = 1.0, scale: float = 1.0) -> float:
    """The largest difference that rounding leaves; see the top of this file."""
    return LAMBDA * torch.finfo(dtype).eps / 2 * math.sqrt(terms) * condition * scale


def precision(model_type: str) -> torch.dtype:
    """What a float64 model of a family computes in: GPT-J attends in float32 whatever the dtype of its weights.

    With the usual instructions of a processor two orders of the same sums often end in the same bits all the same; with
    others (ATEN_CPU_CAPABILITY=default) they do not.
    """
    return torch.float32 if model_type == "gptj" else torch.float64


def assert_agree(
    mine: Tensor,
    theirs: Tensor,
    terms: float,
    condition: float = 1.0,
    dtype: torch.dtype | None = None,
    scale: float | None = None,
) -> None:
    """Raise unless two arrays are of one shape and agree up to rounding in `dtype`, of theirs if not given."""
    assert mine.shape == theirs.shape, f"{tuple(mine.shape)} instead of {tuple(theirs.shape)}"
    if not theirs.numel():
        return
    wide, other = mine.double(), theirs.double()
    assert bool(wide.isfinite().all())
    assert bool(other.isfinite().all())
    size = float(other.abs().max()) if scale is None else scale
    allowed = tolerance(dtype or theirs.dtype, terms, condition, size)
    apart = float((wide - other).abs().max())
    assert apart <= allowed, f"{apart:.3g} apart of {size:.3g}, allowed are {allowed:.3g}"
