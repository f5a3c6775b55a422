"""Edits to export."""

import copy
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn

from edit_cases import random_edit
from errata.edits.deltas import Delta
from errata.edits.edit import Edit
from errata.models.model import EditableModel
from families import SENTENCES

TOLERANCE = 1e-5


def thin_edit(model: EditableModel) -> Edit:
    """A change of rank 2 of two FFNs and of rank 1 of an attention."""
    whole = random_edit(model)
    site = model.site("attention", 2)
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(shape, generator=generator) for shape in ((site.d_out, 1), (1, site.d_in)))
    return replace(whole, deltas={**whole.deltas, site.path: Delta(0.1 * left, 0.1 * right)})


def logits(network: nn.Module, model: EditableModel) -> list[Tensor]:
    encoded = [model.tokenizer(text, return_tensors="pt") for text in SENTENCES]
    with torch.no_grad():
        return [network(input_ids=one["input_ids"]).logits for one in encoded]


def furthest(ones: list[Tensor], others: list[Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(ones, others, strict=True))


def loaded(model: EditableModel, folder: Path) -> nn.Module:
    """The base model with the adapter, as anyone who has PEFT and not Errata loads it."""
    return PeftModel.from_pretrained(copy.deepcopy(model.model), str(folder))
