"""What every method is given, and what it hands back."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from errata.edits import Delta
from errata.errors import NoFactsLeft, SettingsError, UnsupportedArchitecture
from errata.facts import Fact
from errata.models import EditableModel, Site
from errata.passes import sample_contexts
from errata.runtime import Progress
from errata.solve import (
    KeyPrompts,
    LowerFactor,
    ShareSettings,
    SiteKind,
    Solver,
    SpreadSettings,
    Write,
    least_squares,
    no_factor,
    spread,
)
from errata.values import Outcome, Targets, TargetSettings, TargetStore, place_path

NOT_FINITE = "its loss was not a number (NaN or infinite)"
"""Why a fact is left out."""


@dataclass(frozen=True, kw_only=True)
class ValueSettings(TargetSettings, ShareSettings):
    """The settings of a method that optimises values and shares them out over critical layers."""

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        TargetSettings.__post_init__(self)
        ShareSettings.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class LocateThenEditSettings(ValueSettings, SpreadSettings):
    """The same of PMET and MEMIT, which hold an update small with `covariance_weight`."""

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        TargetSettings.__post_init__(self)
        SpreadSettings.__post_init__(self)

    def at(self, layer: int) -> "LocateThenEditSettings":
        """Those that a block is written with: these, where a method has but one kind of site."""
        del layer
        return self


S = TypeVar("S")
"""The settings of a method: a frozen dataclass that has `layers`, the blocks that are written."""


@dataclass(frozen=True)
class Task:
    """One request for an edit: facts to write into a model, and what the stages share."""

    model: EditableModel
    facts: Sequence[Fact]
    contexts: tuple[str, ...]
    covariance: Callable[[Site], Float[Tensor, "d_in d_in"]]
    """E[k k^T] of a site, in float64, of the unedited model."""
    on_progress: Progress
    seed: int = 0
    keep_in: Path | None = None
    """A folder for what is finished, so that a run that was killed goes on."""
    known: Mapping[int, Outcome] = field(default_factory=dict[int, Outcome])
    """Values that are not to be optimised again, by the fact's index: they enter K and R as they are."""
    earlier: Mapping[str, Float[Tensor, "d_in d_in"]] = field(default_factory=dict[str, Tensor])
    """The sum of k k^T over the facts of earlier edits, by module path."""
    lower: LowerFactor = no_factor
    """The Cholesky factor of E[k k^T] and a ridge, where it is kept."""
    since: int = 0
    """The mark of the model's ledger from before the first write of the method, or of the strategy that runs it."""

    def unedited(self) -> AbstractContextManager[None]:
        """Inside, the weights are those from before that first write."""
        return self.model.ledger.unedited(self.since)

    def keeper(self, settings: TargetSettings, relax: bool = False) -> TargetStore | None:
        """The keeper of finished values; `relax` says whether PMET's rule for phi is in force."""
        if self.keep_in is None:
            return None
        return TargetStore.of(self.keep_in, self.model, self.contexts, settings, relax)


@dataclass(frozen=True)
class Changes:
    """What a method found: the change of each weight, and the facts that it had to leave out."""

    deltas: dict[str, Delta]
    failed: dict[int, str] = field(default_factory=dict[int, str])
    """Why, by the fact's index."""
    outcomes: tuple[Outcome, ...] = ()
    """The values that were found, one a fact; empty where the method has none."""
    key_sums: dict[str, Float[Tensor, "d_in d_in"]] = field(default_factory=dict[str, Tensor])
    """The sum of k k^T over the facts, by module path, where the method wants it for later edits (`Task.earlier`)."""


@dataclass(frozen=True, kw_only=True)
class Method(Generic[S]):
    """A row of the registry."""

    name: str
    summary: str
    source: str
    writes: str
    """Which weights are changed, in words."""
    order: Literal["batch", "sequence"]
    """Whether all facts are written at once, or one after the other."""
    cost: str
    """What one fact costs, in words."""
    settings: type[S]
    check: Callable[[EditableModel, S], None]
    """Raise where these settings or this model cannot be run, before anything is computed."""
    run: Callable[[Task, S], Changes]
    moments: Callable[[EditableModel, S], Sequence[Site]]
    """The sites whose second moments the method needs."""
    contexts: Callable[[EditableModel, int], tuple[str, ...]] = sample_contexts
    """The prefixes where the user gives none, from a seed."""
    earlier_keys: Literal["never", "on request", "always"] = "never"
    """Whether the keys of earlier edits enter K K^T when an edit is made on top of them."""

    @property
    def optimizes_values(self) -> bool:
        """Whether the method has an Optimization stage, so that it can be iterated and take neighbors."""
        return issubclass(self.settings, TargetSettings)


def written_sites(model: EditableModel, settings: ValueSettings) -> list[Site]:
    """The maps that a locate-then-edit method writes: each needs its second moments."""
    return [model.site(kind, layer) for kind in settings.write for layer in settings.layers]


def write_targets(
    task: Task, targets: Targets, settings: LocateThenEditSettings, place_of: Callable[[SiteKind], str]
) -> Changes:
    """Spread the values of all facts that have one; `place_of` says whose value brings about the change of a kind.

    Raises:
        NoFactsLeft: no fact has a value.
        CovarianceError: the second moments cannot be solved with.
    """
    return share_out(
        task,
        targets,
        settings,
        place_of,
        least_squares(task.covariance, settings.covariance_weight, settings.covariance_ridge, task.lower),
    )


def share_out(
    task: Task, targets: Targets, settings: ValueSettings, place_of: Callable[[SiteKind], str], solver: Solver
) -> Changes:
    """`write_targets` for a method with a solver of its own."""
    kept = values_left(targets)
    last = settings.layers[-1]
    chosen = torch.tensor(kept)
    writes = [
        Write(kind, place_path(task.model, place, last), targets.value(place)[chosen])
        for kind in settings.write
        for place in settings.optimise
        if place == place_of(kind)
    ]
    facts = [task.facts[index] for index in kept]
    prompts = KeyPrompts.of(task.model, facts, task.contexts, settings.lookup, settings.key_templates)
    kept = settings.kept(facts)
    deltas = spread(
        task.model,
        settings.layers,
        writes,
        prompts,
        solver,
        settings,
        task.on_progress,
        preserved=KeyPrompts.of(task.model, kept, ("",), settings.lookup) if kept else None,
    )
    return Changes(deltas, dict.fromkeys(targets.failed, NOT_FINITE), targets.outcomes)


def values_left(targets: Targets) -> list[int]:
    """The facts that have a value.

    Raises:
        NoFactsLeft: there is none.
    """
    if not targets.written:
        raise NoFactsLeft(
            "The loss of every fact was not a number. Is the model's precision too low, or is it damaged?"
        )
    return targets.written


def check_places(
    settings: TargetSettings,
    optimise: Sequence[str],
    needed: Sequence[str],
    method: str,
    name: str = "optimise",
) -> None:
    """Raise unless only the places in `optimise` are optimised, and all in `needed` are.

    Raises:
        SettingsError: naming the setting and what the method allows.
    """
    wrong = [place for place in settings.optimise if place not in optimise]
    missing = [place for place in needed if place not in settings.optimise]
    if wrong or missing:
        raise SettingsError(
            f"Setting {name!r} is {list(settings.optimise)}; {method} takes places of {list(optimise)}, and has to "
            f"optimise {list(needed)} to write them."
        )


def check_block_value(model: EditableModel, settings: ValueSettings, method: str) -> None:
    """Raise unless the value is the block's output, to which the down projections that are written add as they are.

    Raises:
        SettingsError: another place than the block's output, or another weight than the FFN's.
        UnsupportedArchitecture: the family normalises after the FFN.
    """
    check_places(settings, optimise=("block",), needed=("block",), method=method)
    if settings.write != ("ffn",):
        raise SettingsError(f"Setting 'write' is {list(settings.write)}; {method} writes ['ffn'] only.")
    if model.architecture.post_norm:
        raise UnsupportedArchitecture(
            f"{model.name} is of family {model.architecture.model_type}, which normalises after the FFN: a change of "
            f"the down projection does not add to the block's output as {method} assumes. Use --method pmet, whose "
            "value stands at the down projection."
        )
