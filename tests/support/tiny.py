"""A tiny model that a test may change, one that always says the same, and texts of many lengths."""

import copy

import torch

from errata.models.loading import from_parts
from errata.models.model import EditableModel
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


SAYS = "the"


def parrot() -> EditableModel:
    """A tiny GPT-2 that answers "the" to everything, and goes on saying it."""
    model = fresh_model()
    (token,) = model.tokenizer(f" {SAYS}").input_ids
    with torch.no_grad():
        weights = dict(model.model.named_parameters())
        weights["transformer.ln_f.weight"].mul_(0.1)
        weights["transformer.ln_f.bias"].copy_(3 * weights["transformer.wte.weight"][token])
    return model
