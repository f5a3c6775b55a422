"""MEMIT (Meng et al., ICLR 2023): optimize the residual stream after the last critical block, write its FFNs."""

from errata.methods.base import (
    Changes,
    Method,
    SiteSettings,
    Task,
    check_block_value,
    site_solver,
    write_targets,
    written_sites,
)
from errata.models import EditableModel


def check(model: EditableModel, settings: SiteSettings) -> None:
    """MEMIT's value is the block's output, or the FFN's own where the family normalizes that (`FFN`).

    Raises:
        SettingsError: another place, or another weight than the FFN's.
        UnsupportedArchitecture: the value is the block's output, and the family normalizes after the FFN.
    """
    check_block_value(model, settings, "memit")


def memit(task: Task, settings: SiteSettings) -> Changes:
    """v* = h^L + delta (eq. 16), spread by 1/left (alg. 1)."""
    targets = task.optimize(settings)
    return write_targets(task, targets, settings, place_of=lambda _: settings.values.optimize[0])


METHOD = Method(
    name="memit",
    summary="optimizes the residual stream after the last critical block, spreads it evenly over the blocks",
    source="Meng et al., Mass-Editing Memory in a Transformer, ICLR 2023",
    writes="the FFN's down projection in every critical layer",
    order="batch",
    cost="up to `values.steps` passes over 7 short texts, forward and back; then a share of one solve a layer",
    settings=SiteSettings,
    check=check,
    moments=written_sites,
    sites=lambda settings: (settings,),
    solver=site_solver,
    run=memit,
    earlier_keys="on request",
)
