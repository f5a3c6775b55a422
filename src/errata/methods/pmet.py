"""PMET (Li et al., AAAI 2024): optimize the hidden states of attention and FFN together, write the FFN alone."""

from errata.methods.base import (
    Changes,
    Method,
    SiteSettings,
    Task,
    check_places,
    site_solver,
    write_targets,
    written_sites,
)
from errata.models import EditableModel


def check(model: EditableModel, settings: SiteSettings) -> None:
    """PMET's values stand at the outputs of attention and FFN, and what is written must have a value.

    Raises:
        SettingsError: other places, or a written place without a value.
    """
    check_places(settings.values, optimize=("attention", "ffn"), needed=settings.spread.write, method="pmet")


def pmet(task: Task, settings: SiteSettings) -> Changes:
    """v* = m^L + delta_m with delta_a optimized beside it and thrown away (eq. 10), spread by 1/sqrt(left) (eq. 11)."""
    targets = task.optimize(settings, relax=True)
    return write_targets(task, targets, settings, place_of=lambda kind: kind)


METHOD = Method(
    name="pmet",
    summary="optimizes attention's and FFN's hidden states together, writes only the FFN's",
    source="Li et al., PMET: Precise Model Editing in a Transformer, AAAI 2024",
    writes="the FFN's down projection in every critical layer (and the attention's W_O, as an ablation)",
    order="batch",
    cost="up to `values.steps` passes over 7 short texts, forward and back; then a share of one solve a layer",
    settings=SiteSettings,
    check=check,
    moments=written_sites,
    sites=lambda settings: (settings,),
    solver=site_solver,
    run=pmet,
    earlier_keys="on request",
)
