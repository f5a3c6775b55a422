"""Models, rows and moments for the tests of streams."""

import torch
from torch import Tensor

from errata.models.model import EditableModel


def values_of(model: EditableModel, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, model.site("ffn", 0).d_out, dtype=torch.float64, generator=generator)
