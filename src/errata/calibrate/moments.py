"""The second moments of every layer that a search may write, measured in one pass before the first trial."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

from errata.calibrate.space import Space
from errata.errors import SettingsError
from errata.methods import method_named
from errata.models import EditableModel, Site
from errata.moments import default_recipe, ensure
from errata.runtime import Progress
from errata.settings import build

MEMORY = 0.25
"""Of what is free: where the sums of all layers need more, each trial measures those that it lacks."""
BYTES = 8
"""Of a number while sums are made."""


def measure_ahead(model: EditableModel, method: str, space: Space, on_progress: Progress) -> None:
    """Measure what is missing of the layers that the search may write, as far as memory allows.

    Raises:
        CovarianceError: the corpus cannot be read, or what was measured is not finite.
    """
    sites: dict[str, Site] = {}
    for settings in space.layer_points():
        for site in _sites(model, method, settings):
            sites.setdefault(site.path, site)
    needed = BYTES * sum(site.d_in**2 for site in sites.values())
    if sites and needed <= MEMORY * psutil.virtual_memory().available:
        every = list(sites.values())
        ensure(model, every, default_recipe(model, sites=every), on_progress)


def _sites(model: EditableModel, method: str, settings: Mapping[str, object]) -> list[Site]:
    """The sites of these settings; none where the method refuses them: the trial will say so."""
    row = method_named(method)
    try:
        built = build(row.settings, settings)
        row.check(model, built)
    except SettingsError:
        return []
    return list(row.moments(model, built))
