"""Forms of fine-tuning, and how the tests run them."""

import torch
from torch import Tensor

from errata.edits.deltas import Delta
from errata.models.model import EditableModel


def equal(one: dict[str, Delta], other: dict[str, Delta]) -> bool:
    same_paths = one.keys() == other.keys()
    return same_paths and all(torch.equal(delta.matrix, other[path].matrix) for path, delta in one.items())


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def assert_untouched(model: EditableModel, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())
    assert not any(weight.requires_grad for weight in model.model.parameters())
