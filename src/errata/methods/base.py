"""What every method is given, and what it hands back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from errata.deltas import Delta
from errata.descent import TargetSettings, place_path
from errata.errors import NoFactsLeft, SettingsError
from errata.facts import Fact
from errata.keys import KeyPrompts
from errata.model import EditableModel, Site
from errata.progress import Progress
from errata.spread import SiteKind, SpreadSettings, Write, spread
from errata.targets import Keeper, Targets


@dataclass(frozen=True, kw_only=True)
class LocateThenEditSettings(TargetSettings, SpreadSettings):
    """The settings of a method that optimises values and spreads them over critical layers."""

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        TargetSettings.__post_init__(self)
        SpreadSettings.__post_init__(self)


S = TypeVar("S", bound=LocateThenEditSettings)


@dataclass(frozen=True)
class Task:
    """One request for an edit: facts to write into a model, and what the stages share."""

    model: EditableModel
    facts: Sequence[Fact]
    contexts: tuple[str, ...]
    covariance: Callable[[Site], Float[Tensor, "d_in d_in"]]
    on_progress: Progress
    keeper: Callable[[bool], Keeper | None]
    """The keeper of finished values, given whether PMET's rule for phi is in force."""


@dataclass(frozen=True)
class Changes:
    """What a method found: the change of each weight, and the facts that it had to leave out."""

    deltas: dict[str, Delta]
    failed: dict[int, str]
    """Why, by the fact's index."""


@dataclass(frozen=True)
class Method(Generic[S]):
    """A row of the registry."""

    name: str
    summary: str
    source: str
    settings: type[S]
    check: Callable[[EditableModel, S], None]
    """Raise where these settings or this model cannot be run, before anything is computed."""
    run: Callable[[Task, S], Changes]


def write_targets(
    task: Task, targets: Targets, settings: LocateThenEditSettings, place_of: Callable[[SiteKind], str]
) -> Changes:
    """Spread the values of all facts that have one; `place_of` says whose value brings about the change of a kind.

    Raises:
        NoFactsLeft: no fact has a value.
    """
    kept = targets.written
    reasons = dict.fromkeys(targets.failed, "its loss was not a number (NaN or infinite)")
    if not kept:
        raise NoFactsLeft(
            "The loss of every fact was not a number. Is the model's precision too low, or is it damaged?"
        )
    last = settings.layers[-1]
    chosen = torch.tensor(kept)
    writes = [
        Write(kind, place_path(task.model, place, last), targets.value(place)[chosen])
        for kind in settings.write
        for place in settings.optimise
        if place == place_of(kind)
    ]
    facts = [task.facts[index] for index in kept]
    prompts = KeyPrompts.of(task.model, facts, task.contexts)
    deltas = spread(task.model, settings.layers, writes, prompts, task.covariance, settings, task.on_progress)
    return Changes(deltas, reasons)


def check_places(
    settings: LocateThenEditSettings, optimise: Sequence[str], needed: Sequence[str], method: str
) -> None:
    """Raise unless only the places in `optimise` are optimised, and all in `needed` are.

    Raises:
        SettingsError: naming the setting and what the method allows.
    """
    wrong = [place for place in settings.optimise if place not in optimise]
    missing = [place for place in needed if place not in settings.optimise]
    if wrong or missing:
        raise SettingsError(
            f"Setting 'optimise' is {list(settings.optimise)}; {method} takes places of {list(optimise)}, and has to "
            f"optimise {list(needed)} to write them."
        )
