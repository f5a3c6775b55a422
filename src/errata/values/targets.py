"""The Optimization stage: for each fact, the value v* that makes the model say the target.

What is minimised stands in `descent.py`; here the facts are put into batches, and what is found is gathered, kept
for a later run where a keeper is given, and handed on in the order of the facts.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol, TypedDict, runtime_checkable

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from errata.errors import OutOfMemory
from errata.facts import Fact
from errata.models import EditableModel
from errata.passes import (
    EncodedRow,
    Row,
    batch_rows,
    by_length,
    encode_rows,
    facts_at_once,
    kl_rows,
    neighbor_rows,
    preserve_rows,
    rewrite_rows,
    side_by_side,
    workers_for,
)
from errata.runtime import Progress, processes, silent
from errata.values.descent import Outcome, Trace, Unedited, optimize_batch
from errata.values.ladder import climb
from errata.values.settings import Place, ValueSettings, ValueSite
from errata.values.shares import gather_outcomes
from errata.values.store import TargetStore

logger = logging.getLogger(__name__)

NOT_FINITE = "its loss was not a number (NaN or infinite)"
NOT_FOUND = "no value was found that makes the model say it"
"""Why a fact is left out."""


@dataclass(frozen=True)
class Targets:
    """The outcome of the Optimization stage, fact by fact in the order given, on the CPU wherever it was found."""

    initial: dict[Place, Float[Tensor, "fact d_model"]]
    """v0, the clean value for the bare prompt."""
    delta: dict[Place, Float[Tensor, "fact d_model"]]
    traces: tuple[Trace, ...]
    outcomes: tuple[Outcome, ...]
    """The same, one a fact."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], places: Sequence[Place]) -> "Targets":
        """Stack the outcomes of single facts."""
        return cls(
            initial={place: torch.stack([one.initial[place].cpu() for one in outcomes]) for place in places},
            delta={place: torch.stack([one.delta[place].cpu() for one in outcomes]) for place in places},
            traces=tuple(one.trace for one in outcomes),
            outcomes=tuple(outcomes),
        )

    def value(self, place: Place) -> Float[Tensor, "fact d_model"]:
        """v* = v0 + delta."""
        return self.initial[place] + self.delta[place]

    @property
    def written(self) -> list[int]:
        """The facts that can be written."""
        reasons = self.reasons
        return [index for index in range(len(self.traces)) if index not in reasons]

    @property
    def failed(self) -> list[int]:
        """The facts that cannot be written."""
        return list(self.reasons)

    @property
    def reasons(self) -> dict[int, str]:
        """Why, by the fact's index: the loss was not a number, or no value does what it is for."""
        return {index: why for index, one in enumerate(self.outcomes) if (why := _why_not(one))}


def _why_not(outcome: Outcome) -> str:
    """Why an outcome cannot be written; "" where it can."""
    if outcome.trace.stop == "not finite":
        return NOT_FINITE
    if not outcome.found:
        return f"{NOT_FOUND}: it comes to a probability of {outcome.probability:.2g}"
    return ""


@runtime_checkable
class Keeper(Protocol):
    """Keeps the outcomes of finished batches, so that a run that is killed can go on (`target_store.py`)."""

    def load(self, facts: Sequence[Fact]) -> list[Outcome] | None:
        """What was kept for exactly these facts in this order, or None."""
        ...

    def save(self, facts: Sequence[Fact], outcomes: Sequence[Outcome]) -> None:
        """Keep the outcomes of these facts."""
        ...


class HowTo(TypedDict, total=False):
    """The keywords of `optimize_targets`: the fields of `_Optimization` after its site."""

    relax: bool
    record_deltas: bool
    keeper: Keeper | None
    on_progress: Progress
    known: Mapping[int, Outcome]
    unedited: Unedited


def optimize_targets(
    model: EditableModel,
    facts: Sequence[Fact],
    contexts: Sequence[str],
    site: ValueSite,
    **how: Unpack[HowTo],
) -> Targets:
    """Find v* of every fact at the last critical layer (PMET eq. 10; MEMIT eq. 16).

    `relax` is PMET's rule for phi: while the target is the argmax at every target position of every context, the next
    pass uses 0.1 * phi, and the fact stops once mu * KL <= 0.01. What `keeper` already holds is not computed again.
    A fact whose loss is not finite stops and is marked; the others go on. `known` holds outcomes that are taken as they
    are, by the fact's index; inside `unedited()` the weights are those whose distributions are to be preserved.

    Raises:
        OutOfMemory: memory does not suffice for a single fact. For a batch it is halved until it fits.
    """
    known, keeper = how.get("known", {}), how.get("keeper")

    def again(rung_site: ValueSite, chosen: list[int], rung: int) -> Sequence[Outcome]:
        more: HowTo = {**how, "known": {}, "keeper": None}
        if isinstance(keeper, TargetStore):
            more["keeper"] = keeper.after(["rung", rung])
        some = [facts[index] for index in chosen]
        return _Optimization(model, some, contexts, rung_site, **more).run().outcomes

    first = _Optimization(model, facts, contexts, site, **how).run()
    return Targets.of(climb(facts, site, first.outcomes, list(known), again), site.values.optimize)


RunGroups = Callable[[list[list[int]]], Iterable[tuple[list[int], list[Outcome] | None]]]
"""Optimizes groups of facts; yields each with its outcomes, or None where memory did not suffice."""


@dataclass
class _Optimization:
    """The stage for all facts: in batches by length, side by side, each kept when it is done."""

    model: EditableModel
    facts: Sequence[Fact]
    contexts: Sequence[str]
    site: ValueSite
    relax: bool = False
    record_deltas: bool = False
    keeper: Keeper | None = None
    on_progress: Progress = silent
    known: Mapping[int, Outcome] = field(default_factory=dict[int, Outcome])
    unedited: Unedited = nullcontext
    rows_of: list[list[EncodedRow]] = field(default_factory=list[list[EncodedRow]])
    """The rows of each fact."""
    outcomes: dict[int, Outcome] = field(default_factory=dict[int, Outcome])
    """By the fact's index."""
    open_facts: list[int] = field(default_factory=list[int])
    """Those that this process optimizes."""

    def run(self) -> Targets:
        """Optimize every fact whose outcome is not known."""
        self.outcomes.update(self.known)
        self.rows_of = self._encoded()
        length_of = [max(len(row.text.ids) for row in rows) for rows in self.rows_of]
        all_open = sorted(
            (index for index in range(len(self.facts)) if index not in self.outcomes),
            key=lambda index: (length_of[index], index),
        )
        self.open_facts = sorted(processes.share(all_open))
        workers = 1 if self.site.values.preserves else workers_for(self.model, len(self.open_facts))
        groups = self._groups(length_of, workers)
        with side_by_side(self.model, min(workers, max(1, len(groups))), self._work) as run:
            while groups:
                groups = self._pass(run, groups)
        own = {index: self.outcomes[index] for index in self.open_facts}
        places = self.site.values.optimize
        self.outcomes |= gather_outcomes(own, places)
        return Targets.of([self.outcomes[index] for index in range(len(self.facts))], places)

    def _encoded(self) -> list[list[EncodedRow]]:
        rows_of: list[list[EncodedRow]] = [[] for _ in self.facts]
        rows = rows_for(self.facts, self.contexts, self.site.values)
        for row in encode_rows(self.model, rows, self.site.lookup):
            rows_of[row.row.fact].append(row)
        return rows_of

    def _groups(self, length_of: Sequence[int], workers: int) -> list[list[int]]:
        """Facts that are optimized together: of like length, as many as fit the memory."""
        rows = [self.rows_of[index] for index in self.open_facts]
        lengths = [length_of[index] for index in self.open_facts]
        at_once = facts_at_once(self.model, rows, self.site.layers[-1], workers, processes.count())
        return [[self.open_facts[position] for position in group] for group in by_length(lengths, at_once)]

    def _pass(
        self,
        run: Callable[[list[list[int]]], Iterable[tuple[list[int], list[Outcome] | None]]],
        groups: list[list[int]],
    ) -> list[list[int]]:
        """Optimize the groups that are not kept; those for which memory did not suffice come back in halves."""
        smaller: list[list[int]] = []
        for group, outcomes in run([group for group in groups if not self._take_kept(group)]):
            if outcomes is None:
                smaller += _halves(group, self.facts)
                continue
            if self.keeper:
                self.keeper.save([self.facts[index] for index in group], outcomes)
            self._finish(group, outcomes)
        return smaller

    def _work(self, own: EditableModel, group: list[int]) -> list[Outcome] | None:
        rows = [row for index in group for row in self.rows_of[index]]
        return _within_memory(own, rows, self.site, self.relax, self.record_deltas, self.unedited)

    def _take_kept(self, group: list[int]) -> bool:
        outcomes = self.keeper.load([self.facts[index] for index in group]) if self.keeper else None
        if outcomes is not None:
            self._finish(group, outcomes)
        return outcomes is not None

    def _finish(self, group: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        self.outcomes.update(zip(group, outcomes, strict=True))
        left = len(self.open_facts) - sum(index in self.outcomes for index in self.open_facts)
        done = max(0, len(self.facts) - processes.count() * left)
        self.on_progress("optimization", done, len(self.facts))


def _within_memory(
    model: EditableModel,
    rows: Sequence[EncodedRow],
    site: ValueSite,
    relax: bool,
    record_deltas: bool,
    unedited: Unedited,
) -> list[Outcome] | None:
    """The outcomes of a batch, or None where memory does not suffice for it."""
    try:
        return optimize_batch(model, batch_rows(model, rows), site, relax, record_deltas, unedited)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
            raise
    clear_device_cache(garbage_collection=True)
    return None


def _halves(group: Sequence[int], facts: Sequence[Fact]) -> list[list[int]]:
    """The group in two.

    Raises:
        OutOfMemory: it is a single fact.
    """
    if len(group) == 1:
        raise OutOfMemory(
            f"Memory does not suffice to optimise a single fact ({facts[group[0]].subject!r}). Free some, or load the "
            "model in a smaller dtype (--dtype bfloat16) or on another device (--device)."
        )
    middle = len(group) // 2
    logger.warning(
        "Memory does not suffice for %d facts at once; they are tried %d at a time.", len(group), middle
    )
    return [list(group[:middle]), list(group[middle:])]


def rows_for(facts: Sequence[Fact], contexts: Sequence[str], values: ValueSettings) -> list[Row]:
    """Every text that the loss of these facts reads."""
    rows = rewrite_rows(facts, contexts)
    if values.neighbor_weight > 0:
        behind = contexts[1] if values.neighbor_prefix and len(contexts) > 1 else ""
        rows += neighbor_rows(facts, values.neighbor_count, behind)
    if values.preserves:
        rows += preserve_rows(facts, values.preserve_rows)
    return rows + kl_rows(facts)
