"""What an edit does to weights, in numbers. Unlike the commands' own files this one imports torch as it is loaded."""

from typing import cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from errata.cli.tables import Change
from errata.edits import Delta, Edit, sites_of
from errata.models import ALMANAC, EditableModel, almanac_folder


def changes_of(edit: Edit, model: EditableModel | None = None) -> list[Change]:
    """The changes of an edit; `model` is the unedited model, if it is at hand.

    Raises:
        WrongModel: the model lacks a weight that the edit changes.
    """
    sites = {} if model is None else sites_of(model, edit.deltas)
    return [
        Change(
            path=path,
            shape=delta.shape,
            rank=delta.rank,
            norm=_norm(delta),
            weight_norm=_square(sites[path].held().weight) ** 0.5 if path in sites else None,
        )
        for path, delta in edit.deltas.items()
    ]


def apply_and_compare(model: EditableModel, edit: Edit) -> float:
    """Apply the edit; returns how far rounding to the model's dtype moves the change, relative to its norm."""
    sites = sites_of(model, edit.deltas)
    before = {path: site.matrix.clone() for path, site in sites.items()}
    edit.apply(model)
    wrong, whole = 0.0, 0.0
    for path, site in sites.items():
        wanted = edit.deltas[path].matrix.double()
        written = site.matrix.double() - before[path].double()
        wrong += _square(written - wanted.to(written.device))
        whole += _square(wanted)
    return (wrong / whole) ** 0.5 if whole else 0.0


def to_own_dtype(model: EditableModel) -> None:
    """Narrow what loading widened, which is exact: the checkpoint's own precision."""
    source = str(almanac_folder()) if model.name == ALMANAC else model.name
    own = cast("torch.dtype | None", AutoConfig.from_pretrained(source).dtype)
    if own is not None and own != model.dtype:
        cast(nn.Module, model.model).to(own)
        model.model.config.dtype = own


def _norm(delta: Delta) -> float:
    """The Frobenius norm; of factors without their product: |LR|^2 = sum(L^T L * R R^T)."""
    if delta.dense is not None:
        return _square(delta.dense) ** 0.5
    left, right = delta.tensors["left"].double(), delta.tensors["right"].double()
    return max(0.0, float(((left.T @ left) * (right @ right.T)).sum())) ** 0.5


def _square(matrix: Tensor) -> float:
    """The squared Frobenius norm."""
    return float(matrix.detach().double().square().sum())
