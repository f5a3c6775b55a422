"""Facts that MEND's editor can be trained on, and gradients by autograd."""

from collections.abc import Sequence

import torch
from torch import Tensor

from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.methods.mend.editor import edited_sites
from errata.methods.mend.examples import Example
from errata.methods.mend.gradients import Readings
from errata.models.model import EditableModel
from errata.passes.prompts import encode_text

NAMES = ("Mira Tolland", "Edda Rowe", "Hale Corvin", "Jonas Whitlock", "Orin Vasker", "Bellwether")


PLACES = ("Kestrel", "Mirenth", "Lindale", "Duskwell", "Tessaly", "Old Tarn")


def trainable(count: int = 6) -> list[Fact]:
    """Facts with everything that a training asks for."""
    return [
        Fact(
            "{} was born in",
            name,
            place,
            "Port Avel",
            paraphrase_prompts=(f"I think. {name} was born in", f"The birthplace of {name} is"),
            neighborhood_prompts=("Zentro was born in", Probe("Valdoria was born in", "Kestrel")),
            unrelated_prompts=(Probe("The quiet river is", "in Tessaly"),),
            case_id=number,
        )
        for number, (name, place) in enumerate(zip(NAMES[:count], PLACES, strict=False))
    ]


def texts_of(model: EditableModel, facts: Sequence[Fact]) -> Readings:
    return Readings.of(model, [encode_text(model, fact.question, fact.target_new) for fact in facts])


def weight_gradients(model: EditableModel, facts: Sequence[Fact], layers: Sequence[int]) -> dict[str, Tensor]:
    """Of the sum of the facts' losses, by autograd, one fact and no padding at a time, as [d_out, d_in]."""
    sites = edited_sites(model, layers)
    total = {site.path: torch.zeros_like(site.matrix) for site in sites}
    for site in sites:
        site.weight.requires_grad_(True)
    try:
        for fact in facts:
            text = encode_text(model, fact.question, fact.target_new)
            log_p = model.model(input_ids=torch.tensor([text.ids])).logits[0].log_softmax(dim=-1)
            loss = -log_p[list(text.predicted_at), list(text.target)].mean()
            for site, found in zip(
                sites, torch.autograd.grad(loss, [site.weight for site in sites]), strict=True
            ):
                total[site.path] += found.T if site.transposed else found
    finally:
        for site in sites:
            site.weight.requires_grad_(False)
    return total


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def assert_untouched(model: EditableModel, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())


def examples(count: int = 6) -> list[Example]:
    return [Example.of(fact, ("neighborhood", "unrelated")) for fact in trainable(count)]
