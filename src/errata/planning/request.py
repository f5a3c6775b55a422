"""What somebody wants edited, in the words that the command line, Python and the web UI share."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from errata.edits import Stack
from errata.errors import SettingsError
from errata.facts import Fact
from errata.methods import Method, method_named
from errata.runtime import cache_root
from errata.settings import DEFAULT_METHOD
from errata.strategies import Strategy, check_strategy

NeighborsFrom = Literal["file", "auto", "none"]
Preserve = Literal["subject", "none"]


@dataclass(frozen=True)
class EditRequest:
    """One edit: the facts, the method, and everything that makes the edit good.

    Raises:
        SettingsError, UnknownSetting: words that contradict each other, or that the method cannot follow.
    """

    facts: Sequence[Fact]
    method: str = DEFAULT_METHOD
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    """Over the preset's."""
    preset: str | None = None
    """By name or as the path of a TOML file; default: the one for the model, or the rule."""
    strategy: Strategy | None = None
    """Iterations, batches and guard; None writes all facts once."""
    contexts: Sequence[str] | None = None
    """Prefix texts, the empty one first; default: sampled from the model with `seed`."""
    covariance: str | os.PathLike[str] | None = None
    """A folder of second moments; default: measured once and kept in the user's cache."""
    neighbors: NeighborsFrom | None = None
    """Keep neighboring facts unchanged: those of the facts, or those the model turns out to know ("auto")."""
    keep_unqualified: bool = False
    """With "auto": edit facts without neighbors too instead of leaving them out."""
    preserve: Preserve | None = None
    """Leave other statements about the subjects as they are."""
    stack: Stack | None = None
    """Make the edit on top of these: they are in the weights while it is made."""
    hold: bool = True
    """With a stack: let the keys of its facts enter K K^T, so that they hold."""
    keep_in: str | os.PathLike[str] | None = None
    """Where finished values are kept, so that a run that was killed resumes."""
    seed: int = 0
    check: bool | None = None
    """Ask every fact after the write, and write again what is missing (`errata.strategies`); default: where no preset
    is known for the model, and neither a strategy nor settings of the values are given."""

    def __post_init__(self) -> None:
        """Refuse what no method, or not this one, can do."""
        row = method_named(self.method)
        if self.keep_unqualified and self.neighbors != "auto":
            raise SettingsError("Keeping unqualified facts (--keep-unqualified) requires --neighbors auto.")
        self._check_values_needed(row)
        if self.strategy is not None:
            check_strategy(row, self.strategy)
        self._check_checkable(row)
        if not self.hold and row.earlier_keys == "always":
            raise SettingsError(
                f"{row.name} always knows the keys of earlier edits; they cannot be left out (--no-hold)."
            )

    def _check_checkable(self, row: Method[object]) -> None:
        """Raise where a check is asked for that there cannot be.

        Raises:
            SettingsError: the method optimizes no values, or a strategy says already what is written again.
        """
        if self.check and not row.optimizes_values:
            raise SettingsError(f"--check is for methods that optimize values, and {row.name} does not.")
        if self.check and self.strategy is not None:
            raise SettingsError("--check decides by itself what is written again; leave the iterations out.")

    def _check_values_needed(self, row: Method[object]) -> None:
        """Raise where an option needs values and the method optimizes none.

        Raises:
            SettingsError: naming the option.
        """
        for option, value in (("--neighbors", self.neighbors), ("--preserve", self.preserve)):
            if value is not None and not row.optimizes_values:
                raise SettingsError(
                    f"{option} is for methods that optimize values, and {row.name} does not. Leave it out, or use "
                    "another method (`errata methods` lists them)."
                )


class SourceWords(TypedDict, total=False):
    """Keywords of a request: where its settings, contexts and second moments come from, and the seed."""

    preset: str | None
    contexts: Sequence[str] | None
    covariance: str | os.PathLike[str] | None
    seed: int


class BesideWords(TypedDict, total=False):
    """Keywords of a request: the rows beside its facts."""

    neighbors: NeighborsFrom | None
    keep_unqualified: bool
    preserve: Preserve | None


class Words(SourceWords, BesideWords, total=False):
    """The keywords of `errata.edit`: the fields of `EditRequest` after its settings."""

    strategy: Strategy | None
    check: bool | None
    stack: Stack | None
    hold: bool
    keep_in: str | os.PathLike[str] | None


def kept_values() -> Path:
    """The folder in the user's cache where the command line and the web UI keep finished values (`keep_in`)."""
    return cache_root() / "targets"
