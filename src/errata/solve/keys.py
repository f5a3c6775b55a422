"""Keys and current values: what a fact's lookup position feeds into a linear map, and what stands at the last layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from errata.facts import Fact
from errata.models import EditableModel, Site, solving_device
from errata.passes import (
    EncodedRow,
    Lookup,
    RowBatch,
    Streams,
    Wanted,
    batch_rows,
    batches_of,
    budget_on,
    by_length,
    encode_rows,
    rewrite_rows,
    wording_rows,
)
from errata.runtime import processes
from errata.solve.settings import KeyAverage

TOKENS_AT_ONCE = 16384
ON_CPU = 2048
"""Tokens of rows whose streams are kept that run together on a CPU, where more is not faster."""
ELEMENTS = 2**21
"""Of the keys that are held at once: facts are taken in chunks."""
CHUNK = 1024
"""Facts in a chunk, at most."""


@dataclass(frozen=True)
class KeyPrompts:
    """Every fact's prompt up to its lookup position, behind each context: all that keys depend on."""

    model: EditableModel
    of_facts: tuple[Fact, ...]
    contexts: tuple[str, ...]
    """The empty one first."""
    lookup: Lookup = "subject_last"
    templates: int = 0
    """How many of a fact's other wordings are read too, bare."""

    @classmethod
    def of(
        cls,
        model: EditableModel,
        facts: Sequence[Fact],
        contexts: Sequence[str],
        lookup: Lookup = "subject_last",
        templates: int = 0,
    ) -> "KeyPrompts":
        """The prompts of these facts behind these contexts."""
        return cls(model, tuple(facts), tuple(contexts), lookup, templates)

    @property
    def facts(self) -> int:
        """How many facts there are."""
        return len(self.of_facts)

    @cached_property
    def rows(self) -> tuple[EncodedRow, ...]:
        """Fact by fact: the prompt behind every context, bare first, then its other wordings."""
        return self.rows_of(range(self.facts))

    def rows_of(self, chosen: Sequence[int]) -> tuple[EncodedRow, ...]:
        """The rows of some facts. Whole prompts are tokenised and their ids cut: cutting the text could change them."""
        facts = [self.of_facts[index] for index in chosen]
        rows = [*rewrite_rows(facts, self.contexts), *wording_rows(facts, self.templates)]
        rows.sort(key=lambda row: row.fact)
        return tuple(_cut(row) for row in encode_rows(self.model, rows, self.lookup))

    def keys(self, site: Site, average: KeyAverage) -> Float[Tensor, "fact d_in"]:
        """k of each fact with the weights as they stand now, in float64 (PMET eq. 12, MEMIT eq. 19)."""
        each = self._read(self.rows, inputs_of=site.path)
        if not self.templates:
            return average_over_contexts(each.reshape(self.facts, len(self.contexts), -1), average)
        facts = _facts_of(self.rows)
        share = row_weights(facts, len(self.contexts), average).to(each)
        total = torch.zeros(self.facts, each.shape[1]).to(each)
        return total.index_add_(0, facts.to(each.device), share[:, None] * each)

    def values(self, path: str) -> Float[Tensor, "fact d_model"]:
        """The output of the module at `path` for each bare prompt, with the weights as they stand now, in float64."""
        return self._read(
            [row for index, row in enumerate(self.rows) if _is_bare(self.rows, index)], outputs_of=path
        )

    def _read(
        self, rows: Sequence[EncodedRow], inputs_of: str | None = None, outputs_of: str | None = None
    ) -> Float[Tensor, "row d"]:
        found: dict[int, Tensor] = {}
        lengths = [len(row.text.ids) for row in rows]
        for group in by_length(lengths, max(1, TOKENS_AT_ONCE // max(lengths))):
            batch = batch_rows(self.model, [rows[index] for index in group])
            seen = self.model.values_at(
                batch.tokens,
                batch.lookup,
                inputs_of=[inputs_of] if inputs_of else [],
                outputs_of=[outputs_of] if outputs_of else [],
            )
            (values,) = seen.values()
            found.update(zip(group, values.to(solving_device(values.device), torch.float64), strict=True))
        return torch.stack([found[index] for index in range(len(rows))])


def average_over_contexts(
    keys: Float[Tensor, "fact context d_in"], average: KeyAverage
) -> Float[Tensor, "fact d_in"]:
    """The mean over contexts as the setting says; the bare prompt stands first."""
    if average == "plain" or keys.shape[1] == 1:
        return keys.mean(dim=1)
    return (keys[:, 0] + keys[:, 1:].mean(dim=1)) / 2


def context_weights(contexts: int, average: KeyAverage) -> Float[Tensor, " context"]:
    """What each context weighs in that mean, in float64."""
    return average_over_contexts(torch.eye(contexts, dtype=torch.float64)[None], average)[0]


def row_weights(facts: Int[Tensor, " row"], contexts: int, average: KeyAverage) -> Float[Tensor, " row"]:
    """What each row of `KeyPrompts` weighs in its fact's key: every wording the same, in float64."""
    of_contexts = context_weights(contexts, average)
    counts = cast("list[int]", torch.bincount(facts).tolist())
    wordings = [count - contexts for count in counts]
    each = [torch.cat([of_contexts, torch.ones(others).double()]) / (1 + others) for others in wordings]
    return torch.cat(each)


def _facts_of(rows: Sequence[EncodedRow]) -> Int[Tensor, " row"]:
    return torch.tensor([row.row.fact for row in rows])


def _is_bare(rows: Sequence[EncodedRow], index: int) -> bool:
    """Whether the row is a fact's first: its bare prompt."""
    return index == 0 or rows[index].row.fact != rows[index - 1].row.fact


@dataclass(frozen=True)
class KeysSeen:
    """What was read of some of the facts, in float64."""

    facts: tuple[int, ...]
    keys: Float[Tensor, "fact d_in"]
    current: Float[Tensor, "fact d_model"]


class KeyStreams:
    """The keys and current values of many facts, site after site from below, while the weights change in between.

    Facts are taken in chunks, so that what is held at once does not grow with their number; those with the same
    template come together, as they share the tokens before their subjects.
    """

    def __init__(
        self, prompts: KeyPrompts, top: int, share: bool | None = None, all_together: bool = False
    ) -> None:
        """`top` is the block in which, or at the end of which, current values are read.

        `all_together`: the processes of a run of several share the facts, and each reads what all have found.

        `share`: whether rows share the tokens with which they begin; by default in every dtype but float64. There every
        digit counts, and some families compute attention in float32 all the same: split, it is rounded differently.
        """
        share = prompts.model.dtype != torch.float64 if share is None else share
        self._share = share and prompts.model.passes.keeps_tokens
        self._model = prompts.model
        self._contexts = len(prompts.contexts)
        self._top = top
        site = self._model.site("ffn", top)
        self._device = solving_device(site.device)
        order = sorted(range(prompts.facts), key=lambda index: prompts.of_facts[index].prompt)
        self._all_together = all_together and processes.count() > 1
        size = max(1, min(CHUNK, ELEMENTS // site.d_in))
        self._rounds = -(-len(order[:: processes.count()]) // size)
        order = processes.share(order) if self._all_together else order
        self._chunks = [tuple(order[start : start + size]) for start in range(0, len(order), size)]
        self._batches: list[RowBatch] = []
        self._of_chunk: list[list[tuple[int, bool]]] = []
        self._facts_of: list[Int[Tensor, " row"]] = []
        for chunk in self._chunks:
            rows = prompts.rows_of(chunk)
            self._of_chunk.append(self._plan(rows))
            self._facts_of.append(_facts_of(rows))
        self._streams = Streams(self._model, self._batches, budget_on(self._device)) if order else None

    def read(self, site: Site, value: str | None, average: KeyAverage) -> Iterator[KeysSeen]:
        """Every fact's key at a site and the output of the module at `value` (zeros without one), chunk by chunk."""
        own = self._read_own(site, value, average)
        if not self._all_together:
            yield from own
            return
        for _ in range(self._rounds):
            seen = next(own, None)
            tensors = {} if seen is None else {"keys": seen.keys, "current": seen.current}
            facts = processes.gather(() if seen is None else seen.facts)
            for numbers, found in zip(facts, processes.gather_tensors(tensors), strict=True):
                if numbers:
                    keys, current = found["keys"].to(self._device), found["current"].to(self._device)
                    yield KeysSeen(tuple(numbers), keys, current)

    def _read_own(self, site: Site, value: str | None, average: KeyAverage) -> Iterator[KeysSeen]:
        """What this process reads itself."""
        if self._streams is None:
            return
        for facts, batches, owners in zip(self._chunks, self._of_chunk, self._facts_of, strict=True):
            weights = row_weights(owners, self._contexts, average).to(self._device)
            owner = owners.to(self._device)
            keys = torch.zeros(len(facts), site.d_in, dtype=torch.float64, device=self._device)
            current = torch.zeros(len(facts), self._model.site("ffn", self._top).d_out).to(keys)
            for number, bare in batches:
                rows = self._batches[number].rows.to(self._device)
                wanted = Wanted(site, value, self._top) if bare and value else Wanted(site)
                seen = self._streams.read(number, wanted)
                keys.index_add_(0, owner[rows], weights[rows, None] * seen.keys.to(keys))
                if seen.values is not None:
                    current[owner[rows]] = seen.values.to(current)
            yield KeysSeen(facts, keys, current)

    def _plan(self, rows: Sequence[EncodedRow]) -> list[tuple[int, bool]]:
        """The batches of a chunk, by number; and whether they hold bare prompts, of which values are read too."""
        first = len(self._batches)
        at_once = ON_CPU if self._device.type == "cpu" else TOKENS_AT_ONCE
        bare = [index for index in range(len(rows)) if _is_bare(rows, index)]
        others = [index for index in range(len(rows)) if not _is_bare(rows, index)]
        planned: list[tuple[int, bool]] = []
        for numbers in (bare, others):
            batches = batches_of(
                self._model, [rows[index] for index in numbers], numbers, at_once, self._share
            )
            self._batches += batches
            planned += [(first + len(planned) + index, numbers is bare) for index in range(len(batches))]
        return planned


def _cut(row: EncodedRow) -> EncodedRow:
    text = replace(
        row.text, ids=row.text.ids[: row.lookup + 1], target=(), spans=row.text.spans[: row.lookup + 1]
    )
    return replace(row, text=text)
