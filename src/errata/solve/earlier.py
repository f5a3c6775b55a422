"""Keys of earlier edits: sums over facts, so that their number does not matter."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from errata.edits import edits_in
from errata.facts import Fact
from errata.models import EditableModel, Site
from errata.passes import Lookup
from errata.solve.keys import KeyPrompts, KeyStreams
from errata.solve.settings import KeySettings


def earlier_key_sum(
    model: EditableModel,
    site: Site,
    lookup: Lookup,
    settings: KeySettings,
    earlier: Mapping[str, Float[Tensor, "d_in d_in"]],
) -> Float[Tensor, "d_in d_in"]:
    """K_p K_p^T in float64: what `earlier` has for the site, and the keys of the facts of every edit in the model.

    The latter are measured with the weights as they stand now, behind the contexts that each edit was made with, and
    otherwise as the settings of the present one say.
    """
    total = torch.zeros(site.d_in, site.d_in, dtype=torch.float64)
    if site.path in earlier:
        total += earlier[site.path].to(total)
    for edit in edits_in(model):
        if edit.facts:
            total += key_sum(model, site, edit.facts, edit.origin.contexts, lookup, settings).to(total)
    return total


def key_sum(
    model: EditableModel,
    site: Site,
    facts: Sequence[Fact],
    contexts: Sequence[str],
    lookup: Lookup,
    settings: KeySettings,
) -> Float[Tensor, "d_in d_in"]:
    """K K^T of some facts in float64, with the weights as they stand now."""
    prompts = KeyPrompts.of(model, facts, contexts, lookup, settings.templates)
    total = torch.zeros(site.d_in, site.d_in, dtype=torch.float64)
    for seen in KeyStreams(prompts, site.layer).read(site, site.path, settings.average):
        keys = seen.keys.to(total)
        total += keys.T @ keys
    return total
