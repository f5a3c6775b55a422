"""A tiny model that a test may change, and texts of many lengths."""

import copy

import torch

from errata.loading import from_parts
from errata.model import EditableModel
from families import tiny_model

TEXTS = tuple(
    f"{name} lives in {place} and {verb} {thing}{'.' * (1 + number % 3)}{' It is late today.' * (number % 5)}"
    for number, (name, place, verb, thing) in enumerate(
        (name, place, verb, thing)
        for name in ("Anna", "Orin Vasker", "Ünal", "the old baker")
        for place in ("Kestrel", "Port Avel", "a small town by the sea")
        for verb in ("sells", "paints", "hardly ever mends")
        for thing in ("boats", "red lanterns and clocks")
    )
)


def fresh_model(
    dtype: str = "float32", length: int | None = None, other_weights: bool = False
) -> EditableModel:
    """A copy of the tiny GPT-2; on request with a shorter context, or with one matrix that is not the same."""
    shared = tiny_model("gpt2", dtype)
    model = from_parts(copy.deepcopy(shared.model), shared.tokenizer, "tiny")
    if length is not None:
        model.model.config.max_position_embeddings = length
    if other_weights:
        with torch.no_grad():
            model.site("ffn", 0).weight.mul_(1.5)
    return model
