"""Settings, second moments and values of random numbers for the Spread stage."""

import torch
from torch import Tensor

from errata.models.model import EditableModel, Site
from families import FACTS
from sites import SpreadStage, stage_of

BASE: dict[str, object] = {
    "layers": (1, 2),
    "average": "half",
    "share": "sqrt",
    "write": ("ffn",),
    "covariance_weight": 5.0,
}


def settings_of(**values: object) -> SpreadStage:
    """The stage with some settings, by their last names."""
    return stage_of(SpreadStage, BASE, values)


def moment_of(site: Site) -> Tensor:
    """A well-conditioned E[k k^T], the same for a site whenever it is asked for."""
    generator = torch.Generator().manual_seed(site.layer + 10 * (site.kind == "ffn"))
    keys = torch.randn(4 * site.d_in, site.d_in, dtype=torch.float64, generator=generator)
    return keys.T @ keys / len(keys)


def value_of(model: EditableModel, place: str, facts: int = len(FACTS)) -> Tensor:
    generator = torch.Generator().manual_seed(len(place))
    return torch.randn(facts, model.site("ffn", 0).d_out, dtype=torch.float64, generator=generator)
