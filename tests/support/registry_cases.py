"""What the tests over all methods compare: weights, edits, and how surprised a model is by a fact."""

import torch
from torch import Tensor

from errata.edits.edit import Edit
from errata.models.model import EditableModel


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def assert_untouched(model: EditableModel, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())
    assert not model.ledger.changed


def assert_identical(one: Edit, other: Edit) -> None:
    assert one.deltas.keys() == other.deltas.keys()
    for path, delta in one.deltas.items():
        mine, theirs = delta.tensors, other.deltas[path].tensors
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
