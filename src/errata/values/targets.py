"""The Optimization stage: for each fact, the value v* that makes the model say the target.

What is minimised stands in `descent.py`; here the facts are put into batches, and what is found is gathered, kept
for a later run where a keeper is given, and handed on in the order of the facts.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from jaxtyping import Float
from torch import Tensor

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
from errata.values.settings import Place, ValueSettings, ValueSite
from errata.values.shares import gather_outcomes

logger = logging.getLogger(__name__)


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
        return [index for index in range(len(self.traces)) if index not in set(self.failed)]

    @property
    def failed(self) -> list[int]:
        """The facts whose loss was not a number: they cannot be written."""
        return [index for index, trace in enumerate(self.traces) if trace.stop == "not finite"]


@runtime_checkable
class Keeper(Protocol):
    """Keeps the outcomes of finished batches, so that a run that is killed can go on (`target_store.py`)."""

    def load(self, facts: Sequence[Fact]) -> list[Outcome] | None:
        """What was kept for exactly these facts in this order, or None."""
        ...

    def save(self, facts: Sequence[Fact], outcomes: Sequence[Outcome]) -> None:
        """Keep the outcomes of these facts."""
        ...


def optimize_targets(
    model: EditableModel,
    facts: Sequence[Fact],
    contexts: Sequence[str],
    site: ValueSite,
    relax: bool = False,
    record_deltas: bool = False,
    keeper: Keeper | None = None,
    on_progress: Progress = silent,
    known: Mapping[int, Outcome] | None = None,
    unedited: Unedited = nullcontext,
) -> Targets:
    """Find v* of every fact at the last critical layer (PMET eq. 10; MEMIT eq. 16).

    `relax` is PMET's rule for phi: while the target is the argmax at every target position of every context, the next
    pass uses 0.1 * phi, and the fact stops once mu * KL <= 0.01. What `keeper` already holds is not computed again.
    A fact whose loss is not finite stops and is marked; the others go on. `known` holds outcomes that are taken as they
    are, by the fact's index; inside `unedited()` the weights are those whose distributions are to be preserved.

    Raises:
        OutOfMemory: memory does not suffice for a single fact. For a batch it is halved until it fits.
    """
    encoded = encode_rows(model, rows_for(facts, contexts, site.values), site.lookup)
    rows_of: list[list[EncodedRow]] = [[] for _ in facts]
    for row in encoded:
        rows_of[row.row.fact].append(row)
    outcomes: dict[int, Outcome] = dict(known or {})
    length_of = [max(len(row.text.ids) for row in rows) for rows in rows_of]
    all_open = sorted(
        (index for index in range(len(facts)) if index not in outcomes), key=lambda i: (length_of[i], i)
    )
    open_facts = sorted(processes.share(all_open))
    lengths = [length_of[index] for index in open_facts]
    rows_open = [rows_of[index] for index in open_facts]
    workers = 1 if site.values.preserves else workers_for(model, len(open_facts))
    at_once = facts_at_once(model, rows_open, site.layers[-1], workers, processes.count())
    groups = [[open_facts[position] for position in group] for group in by_length(lengths, at_once)]

    def work(own: EditableModel, group: list[int]) -> list[Outcome] | None:
        rows = [row for index in group for row in rows_of[index]]
        return _within_memory(own, rows, site, relax, record_deltas, unedited)

    def finished(group: Sequence[int], found: Sequence[Outcome]) -> None:
        outcomes.update(zip(group, found, strict=True))
        left = len(open_facts) - sum(index in outcomes for index in open_facts)
        on_progress("optimization", max(0, len(facts) - processes.count() * left), len(facts))

    def kept(group: list[int]) -> bool:
        found = keeper.load([facts[index] for index in group]) if keeper else None
        if found is None:
            return False
        finished(group, found)
        return True

    with side_by_side(model, min(workers, max(1, len(groups))), work) as run:
        while groups:
            smaller: list[list[int]] = []
            for group, found in run([group for group in groups if not kept(group)]):
                if found is None:
                    smaller += _halves(group, facts)
                    continue
                if keeper:
                    keeper.save([facts[index] for index in group], found)
                finished(group, found)
            groups = smaller
    outcomes |= gather_outcomes({index: outcomes[index] for index in open_facts}, site.values.optimize)
    return Targets.of([outcomes[index] for index in range(len(facts))], site.values.optimize)


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
