"""Edits of random numbers, and models that nothing was asked of."""

import copy

import torch
from torch import Tensor

from errata.edits.deltas import Delta
from errata.edits.edit import Dropped, Edit, EditOrigin
from errata.facts.fact import Fact
from errata.facts.probes import Neighbor
from errata.models.loading import from_parts
from errata.models.model import EditableModel
from families import CONTEXTS, FACTS, tiny_model

RICH = Fact(
    "The capital of {} is",
    "Valdoria",
    "Kestrel",
    "Mirenth",
    paraphrase_prompts=("Valdoria's seat of government is",),
    neighbors=(Neighbor("The capital of {} is", "Velmark", "Mirenth"),),
    relation_id="P36",
    case_id=7,
)


def fresh(family: str = "gpt2", dtype: str = "float32") -> EditableModel:
    """A model of its own, of which nothing was asked before."""
    known = tiny_model(family, dtype)
    return from_parts(copy.deepcopy(known.model), known.tokenizer, known.name)


def random_edit(model: EditableModel, seed: int = 0, fingerprint: str = "", size: float = 1e-2) -> Edit:
    """A thin change of two FFNs and a dense one of an attention."""
    generator = torch.Generator().manual_seed(seed)
    precise = torch.promote_types(model.dtype, torch.float32)

    def noise(*shape: int) -> Tensor:
        return (size**0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(precise)

    ffns, attention = [model.site("ffn", layer) for layer in (1, 2)], model.site("attention", 2)
    deltas = {site.path: Delta(noise(site.d_out, 2), noise(2, site.d_in)) for site in ffns}
    deltas[attention.path] = Delta(None, None, noise(attention.d_out, attention.d_in) * size**0.5)
    origin = EditOrigin(
        method="pmet",
        settings={
            "layers": (1, 2),
            "values.clamp": 0.75,
            "spread.share": "sqrt",
            "spread.write": ("ffn", "attention"),
            "x": None,
        },
        contexts=CONTEXTS,
        seed=seed,
        model=model.name,
        revision="abc",
        fingerprint=fingerprint or model.measure_fingerprint(),
        model_dtype=str(model.dtype).removeprefix("torch."),
        covariance="somewhere",
        preset="rule",
        versions={"torch": "2"},
        created="2026-01-01T00:00:00+00:00",
    )
    dropped = (Dropped(FACTS[1], "its loss was not a number"),)
    return Edit(deltas, (RICH, FACTS[0]), origin, dropped, {"seconds": 1.5, "efficacy": 1.0})


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}
