"""Run the clean pass once, keep what an edit cannot change, and resume from the edited block and token.

A delta enters at one token of one block. In a causal model nothing before that token and nothing below that block can
change, so both are computed once: the residual stream that enters the block, and the keys and values of the tokens
before. Every further pass runs the blocks from there on, over the tokens from there on, with the model's own code:
the lower blocks hand on what is kept, and the earlier tokens lie in the model's own cache.

A delta inside a block leaves what that block reads as it is, so of all the block's outputs only the one at the delta's
own token changes: the block runs there alone, and the others are kept as well. The head reads all rows at once.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from errata.models import (
    SHORTEST,
    Change,
    EditableModel,
    StopForward,
    Tokens,
    bypassed,
    cache_rows,
    fresh,
)
from errata.passes.clean import Cut, clean_passes, shared_beginnings, token_window
from errata.passes.prompts import (
    PASS_TOKENS,
    PASS_TOKENS_ELSEWHERE,
    TOKENS_IN_CACHE,
    PromptBatch,
    like_lengths,
)

MOST_TOKENS = 2**14
"""Of a clean pass at once, padding included, on devices that have no tighter bound."""
ChangesOf = Callable[["Part"], Mapping[str, Change]]
"""The changes of module outputs for the rows of a part, of which only the tokens from `start` on are run."""


@dataclass(frozen=True)
class Part:
    """Rows of a batch that are resumed at the same token."""

    rows: Int[Tensor, " part"]
    """Their numbers in the batch."""
    start: Int[Tensor, " part"]
    """The first token of each row that is run again."""
    tokens: Tokens
    """The tokens from `start` on."""
    entering: Float[Tensor, "part run d_model"] | None
    """The residual stream that enters the edited block at these tokens (where `leaving` is kept, up to the last lookup
    position alone); None where that is the first block."""
    cache: Cache | None
    """Keys and values of the tokens before `start`; None where there are none."""
    lookup: Int[Tensor, " part"] | None = None
    """Where the delta enters, counted from `start`; None where changes may be anywhere."""
    leaving: Float[Tensor, "part seq d_model"] | None = None
    """What the edited block hands on without a delta; None where all of it has to run again."""
    span: int = 0
    """How many tokens the edited block runs where `leaving` is kept."""

    def only(self, chosen: Int[Tensor, " chosen"], rows: Int[Tensor, " chosen"]) -> "Part":
        """The chosen rows of the part, which from here on have the numbers `rows`."""
        return replace(
            self,
            rows=rows,
            start=self.start[chosen],
            tokens=Tokens(
                self.tokens.ids[chosen],
                self.tokens.mask[chosen],
                None if self.tokens.earlier is None else self.tokens.earlier[chosen],
            ),
            entering=None if self.entering is None else self.entering[chosen.to(self.entering.device)],
            cache=None if self.cache is None else cache_rows(self.cache, chosen),
            lookup=None if self.lookup is None else self.lookup[chosen],
            leaving=None if self.leaving is None else self.leaving[chosen.to(self.leaving.device)],
        )


@dataclass(frozen=True)
class Resumed:
    """A batch whose clean pass is done: further passes cost only what lies behind the edited block and token."""

    model: EditableModel
    entry: int
    """The first block that is run again."""
    tuples: bool
    """Whether the family's blocks hand on a tuple."""
    parts: tuple[Part, ...]

    @classmethod
    def of(
        cls, model: EditableModel, batch: PromptBatch, entry: int, last: Int[Tensor, " row"], inside: bool
    ) -> "Resumed":
        """Run the clean pass of every row once; `entry` is the first block that is run again.

        `inside` tells that the changes are inside that block or at its output, at the lookup position of each row and
        nowhere else; otherwise they are at the output of the block below. `last` is the last position that is read of
        each row: nothing behind it is ever run.
        """
        if not model.passes.enters_blocks:
            entry, inside = 0, False  # all of it runs again, and the changes are where they are
        aligned = aligns(model)
        ends = last + 1
        start = batch.lookup if aligned else torch.zeros_like(last)
        groups = _alike(batch.lookup - start, last - start)
        kept = [max(0, entry - 1), *([entry] if inside else [])]
        shared = shared_beginnings(batch.tokens, batch.lookup) if aligned else torch.zeros_like(last)
        clean_groups = _of_like_length(ends - shared) if aligned else groups
        passes = clean_passes(model, batch.tokens, clean_groups, ends, kept, entry, shared)
        parts: list[Part] = []
        for rows in groups:
            first = start[rows] if aligned else _first(model, batch.lookup[rows])
            cut, lookup = Cut(passes, rows, first), batch.lookup[rows] - first
            run = int((ends[rows] - first).max())
            if model.dtype == torch.float64:  # where every digit counts
                run = max(run, min(SHORTEST, model.max_length - int(first.max())))
            span = _span(model, lookup, run) if inside else run
            parts.append(
                Part(
                    rows=rows,
                    start=first,
                    tokens=token_window(batch.tokens, rows, first, run, earlier=aligned),
                    entering=cut.output(kept[0], span) if entry else None,
                    cache=cut.cache(entry),
                    lookup=lookup,
                    leaving=cut.output(entry, run) if inside else None,
                    span=span,
                )
            )
        return cls(model, entry, passes[0].tuples, tuple(parts))

    def keep(self, rows: Int[Tensor, " kept"]) -> "Resumed":
        """The rows in `rows` alone, numbered anew in that order."""
        parts: list[Part] = []
        for part in self.parts:
            place = (part.rows[:, None] == rows[None, :]).nonzero()
            if len(place):
                parts.append(part.only(place[:, 0], place[:, 1]))
        return replace(self, parts=tuple(parts))

    def logits_at(
        self, rows: Int[Tensor, " read"], positions: Int[Tensor, " read"], changes_of: ChangesOf
    ) -> Float[Tensor, "read vocab"]:
        """The model's logits at the given places, in the order given, with the changes in force.

        Every position must lie at or behind its row's lookup position.
        """
        places = [(rows[:, None] == part.rows[None, :]).nonzero().unbind(dim=1) for part in self.parts]
        reading = [number for number, (read, _) in enumerate(places) if len(read)]
        order = torch.cat([places[number][0] for number in reading]).argsort()
        found: list[Tensor] = []

        def pick(number: int) -> Change:
            (read, local), last = places[number], number == reading[-1]
            at = positions[read] - self.parts[number].start[local]

            def change(hidden: Tensor) -> Tensor:
                found.append(hidden[local.to(hidden.device), at.to(hidden.device)])
                if not last:
                    raise StopForward
                return torch.cat(found)[order.to(hidden.device)].unsqueeze(0)

            return change

        for number in reading[:-1]:
            part = self.parts[number]
            with (
                self.entered(part, changes_of(part)) as cache,
                self.model.hooked({self.model.architecture.head: pick(number)}, "input"),
            ):
                self.model.forward(part.tokens, cache)
        part = self.parts[reading[-1]]
        with self.entered(part, changes_of(part)) as cache:
            return self.model.logits_of(part.tokens, pick(reading[-1]), cache)

    @contextmanager
    def entered(self, part: Part, changes: Mapping[str, Change]) -> Generator[Cache | None]:
        """While inside, a forward pass over the part's tokens and the cache given resumes it, with the changes."""
        cache = None if part.cache is None else fresh(part.cache)
        if part.leaving is None:
            with (
                bypassed(self.model, self.entry, part.entering, self.tuples),
                self.model.hooked(changes, "output"),
            ):
                yield cache
        else:
            with bypassed(self.model, self.entry + 1, self._changed(part, changes), self.tuples):
                yield cache

    def _changed(self, part: Part, changes: Mapping[str, Change]) -> Float[Tensor, "part seq d_model"]:
        """What the edited block hands on with the changes: run up to the last lookup position, kept elsewhere."""
        assert part.leaving is not None
        assert part.lookup is not None
        tokens = Tokens(
            part.tokens.ids[:, : part.span], part.tokens.mask[:, : part.span], part.tokens.earlier
        )
        seen: list[Tensor] = []

        def read(value: Tensor) -> None:
            seen.append(value)
            raise StopForward

        with (
            bypassed(self.model, self.entry, part.entering, self.tuples),
            self.model.hooked(changes, "output"),
            self.model.hooked({self.model.block_path(self.entry): read}, "output"),
        ):
            self.model.forward(tokens, None if part.cache is None else fresh(part.cache))
        rows, lookup = torch.arange(len(part.rows), device=seen[0].device), part.lookup.to(seen[0].device)
        return part.leaving.index_put((rows, lookup), seen[0][rows, lookup])


def aligns(model: EditableModel) -> bool:
    """Whether rows are resumed together whatever comes before, each at its own lookup position.

    Not in float64, where every digit counts: the last bits of a row would depend on what stands beside it. And only
    where a model can be told positions, and then gives what a whole pass gives.
    """
    return model.dtype != torch.float64 and model.takes_positions and model.passes.aligns


def _first(model: EditableModel, lookup: Int[Tensor, " part"]) -> Int[Tensor, " part"]:
    """Where rows that are not aligned are resumed together: at their first lookup position, if tokens can be kept."""
    return lookup.min().expand(len(lookup)) if model.passes.keeps_tokens else torch.zeros_like(lookup)


def _of_like_length(ends: Int[Tensor, " row"]) -> list[Int[Tensor, " group"]]:
    """Rows in groups whose clean pass runs together."""
    most = TOKENS_IN_CACHE.get(ends.device.type, MOST_TOKENS)
    groups = like_lengths(cast("list[int]", ends.tolist()), most, ends.device)
    return [torch.tensor(group, device=ends.device) for group in groups]


def _alike(lookup: Int[Tensor, " row"], last: Int[Tensor, " row"]) -> list[Int[Tensor, " part"]]:
    """Rows in groups that are run together, from their first lookup position to the last one read.

    Groups are joined, two by two, as long as that makes the sum of (what a pass costs + rows * tokens) smaller, those
    first that gain the most.
    """
    fixed = PASS_TOKENS.get(lookup.device.type, PASS_TOKENS_ELSEWHERE)
    starts, ends = cast("list[int]", lookup.tolist()), cast("list[int]", last.tolist())
    groups: dict[int, _Group] = {}
    by_place: dict[tuple[int, int], list[int]] = {}
    for row in range(len(starts)):
        by_place.setdefault((starts[row], ends[row]), []).append(row)
    for number, ((start, end), rows) in enumerate(sorted(by_place.items())):
        groups[number] = _Group(rows, start, end)
    gains = [_gain(groups, one, other, fixed) for one in groups for other in groups if one < other]
    heapify(gains)
    number = len(groups)
    while gains:
        loss, one, other = heappop(gains)
        if loss >= 0:
            break
        if one in groups and other in groups:
            groups[number] = groups.pop(one).joined(groups.pop(other))
            for each in groups:
                if each != number:
                    heappush(gains, _gain(groups, each, number, fixed))
            number += 1
    return [torch.tensor(sorted(group.rows), device=lookup.device) for group in groups.values()]


@dataclass(frozen=True)
class _Group:
    """Rows that run together from token `start` to token `end`."""

    rows: list[int]
    start: int
    end: int

    @property
    def tokens(self) -> int:
        return len(self.rows) * (self.end - self.start + 1)

    def joined(self, other: "_Group") -> "_Group":
        return _Group([*self.rows, *other.rows], min(self.start, other.start), max(self.end, other.end))


def _gain(groups: Mapping[int, _Group], one: int, other: int, fixed: int) -> tuple[int, int, int]:
    """By how many tokens two groups cost more together than apart, and which they are."""
    first, second = groups[one], groups[other]
    return first.joined(second).tokens - first.tokens - second.tokens - fixed, one, other


def _span(model: EditableModel, lookup: Int[Tensor, " part"], run: int) -> int:
    """How many tokens the edited block runs: up to the last lookup position; in float64 no fewer than `SHORTEST`."""
    least = SHORTEST if model.dtype == torch.float64 else 1
    return min(max(least, int(lookup.max()) + 1), run)
