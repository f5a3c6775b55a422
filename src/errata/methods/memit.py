"""MEMIT (Meng et al., ICLR 2023): optimise the residual stream after the last critical block, write its FFNs."""

from errata.errors import SettingsError, UnsupportedArchitecture
from errata.methods.base import (
    Changes,
    LocateThenEditSettings,
    Method,
    Task,
    check_places,
    write_targets,
    written_sites,
)
from errata.model import EditableModel
from errata.targets import optimize_targets


def check(model: EditableModel, settings: LocateThenEditSettings) -> None:
    """MEMIT's value is the block's output, to which a down projection must add as it is.

    Raises:
        SettingsError: another place than the block's output, or another weight than the FFN's.
        UnsupportedArchitecture: the family normalises after the FFN.
    """
    check_places(settings, optimise=("block",), needed=("block",), method="memit")
    if settings.write != ("ffn",):
        raise SettingsError(f"Setting 'write' is {list(settings.write)}; memit writes ['ffn'] only.")
    if model.architecture.post_norm:
        raise UnsupportedArchitecture(
            f"{model.name} is of family {model.architecture.model_type}, which normalises after the FFN: a change of "
            "the down projection does not add to the block's output as memit assumes. Use --method pmet, whose value "
            "stands at the down projection."
        )


def memit(task: Task, settings: LocateThenEditSettings) -> Changes:
    """v* = h^L + delta (eq. 16), spread by 1/left (alg. 1)."""
    targets = optimize_targets(
        task.model,
        task.facts,
        task.contexts,
        settings,
        keeper=task.keeper(settings),
        on_progress=task.on_progress,
        known=task.known,
        unedited=task.unedited,
    )
    return write_targets(task, targets, settings, place_of=lambda _: "block")


METHOD = Method(
    name="memit",
    summary="optimises the residual stream after the last critical block, spreads it evenly over the blocks",
    source="Meng et al., Mass-Editing Memory in a Transformer, ICLR 2023",
    writes="the FFN's down projection in every critical layer",
    order="batch",
    cost="up to `steps` passes over 7 short texts, forward and back; then a share of one solve a layer",
    settings=LocateThenEditSettings,
    check=check,
    moments=written_sites,
    run=memit,
)
