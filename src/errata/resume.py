"""Run the clean pass once, keep what an edit cannot change, and resume from the edited block and token.

A delta enters at one token of one block. In a causal model nothing before that token and nothing below that block can
change, so both are computed once: the residual stream that enters the block, and the keys and values of the tokens
before. Every further pass runs the blocks from there on, over the tokens from there on, with the model's own code:
the lower blocks hand on what is kept, and the earlier tokens lie in the model's own cache.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import Cache, DynamicCache

from errata.bypass import bypassed, cache_rows, forget, fresh, layers_of
from errata.model import SHORTEST, Change, EditableModel, Tokens
from errata.prompts import PromptBatch

SLACK = 2
"""Rows whose lookup positions differ by no more run together, from the earliest of them on."""
STEP = 4
"""Rows run together only with rows of about the same length behind the lookup position: up to so many tokens more."""

ChangesOf = Callable[["Part"], Mapping[str, Change]]
"""The changes of module outputs for the rows of a part, of which only the tokens from `start` on are run."""


@dataclass(frozen=True)
class Part:
    """Rows of a batch that are resumed at the same token."""

    rows: Int[Tensor, " part"]
    """Their numbers in the batch."""
    start: int
    """The first token that is run again."""
    tokens: Tokens
    """The tokens from `start` on."""
    entering: Float[Tensor, "part seq d_model"] | None
    """The residual stream that enters the edited block at these tokens; None where that is the first block."""
    cache: Cache | None
    """Keys and values of the tokens before `start`; None where there are none."""

    def only(self, chosen: Int[Tensor, " chosen"], rows: Int[Tensor, " chosen"]) -> "Part":
        """The chosen rows of the part, which from here on have the numbers `rows`."""
        return replace(
            self,
            rows=rows,
            tokens=Tokens(self.tokens.ids[chosen], self.tokens.mask[chosen]),
            entering=None if self.entering is None else self.entering[chosen.to(self.entering.device)],
            cache=None if self.cache is None else cache_rows(self.cache, chosen),
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
    def of(cls, model: EditableModel, batch: PromptBatch, entry: int, last: Int[Tensor, " row"]) -> "Resumed":
        """Run the clean pass of every row once; `entry` is the first block whose inside or output is to be changed.

        `last` is the last position that is read of each row: nothing behind it is ever run.
        """
        tuples = False
        parts: list[Part] = []
        for rows, start in _alike(batch.lookup, last):
            end = int(last[rows].max()) + 1
            tokens = Tokens(batch.tokens.ids[rows, :end], batch.tokens.mask[rows, :end])
            part, tuples = _clean_pass(model, tokens, rows, start, entry)
            parts.append(part)
        return cls(model, entry, tuples, tuple(parts))

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
        found: list[Tensor] = []
        order: list[Tensor] = []
        for part in self.parts:
            read, local = (rows[:, None] == part.rows[None, :]).nonzero().unbind(dim=1)
            if len(read):
                found.append(self._pass(part, local, positions[read] - part.start, changes_of(part)))
                order.append(read)
        logits = torch.cat(found)
        return logits[torch.cat(order).argsort().to(logits.device)]

    def _pass(
        self,
        part: Part,
        rows: Int[Tensor, " read"],
        positions: Int[Tensor, " read"],
        changes: Mapping[str, Change],
    ) -> Float[Tensor, "read vocab"]:
        cache = None if part.cache is None else fresh(part.cache)
        with (
            bypassed(self.model, self.entry, part.entering, self.tuples),
            self.model.hooked(changes, "output"),
        ):
            return self.model.logits_at(part.tokens, rows, positions, cache)


def _alike(lookup: Int[Tensor, " row"], last: Int[Tensor, " row"]) -> list[tuple[Int[Tensor, " part"], int]]:
    """Rows in groups with about the same lookup position and length behind it; each with the group's first position."""
    positions, ends = cast("list[int]", lookup.tolist()), cast("list[int]", last.tolist())
    rank = {row: -(-(ends[row] - positions[row]) // STEP) for row in range(len(positions))}
    groups: list[tuple[list[int], int]] = []
    for row in sorted(rank, key=lambda row: (rank[row], positions[row], row)):
        rows, start = groups[-1] if groups else ([], -1)
        if rows and rank[rows[0]] == rank[row] and positions[row] <= start + SLACK:
            rows.append(row)
        else:
            groups.append(([row], positions[row]))
    return [(torch.tensor(rows, device=lookup.device), start) for rows, start in groups]


def _clean_pass(
    model: EditableModel, tokens: Tokens, rows: Int[Tensor, " part"], start: int, entry: int
) -> tuple[Part, bool]:
    """Run the rows once, and keep of every block what a pass from `start` and `entry` on asks for."""
    tokens = _padded(tokens, start, model)
    cache = DynamicCache()  # of whole texts: the model's own would forget what has left a sliding window
    output, tuples = model.block_output(tokens, max(0, entry - 1), cache)
    for layer in layers_of(cache)[:entry]:
        forget(layer)
    for layer in layers_of(cache):
        layer.keys, layer.values = layer.keys[:, :, :start], layer.values[:, :, :start]
    part = Part(
        rows=rows,
        start=start,
        tokens=Tokens(tokens.ids[:, start:], tokens.mask[:, start:]),
        entering=output[:, start:].clone() if entry else None,
        cache=cache if start else None,
    )
    return part, tuples


def _padded(tokens: Tokens, start: int, model: EditableModel) -> Tokens:
    """In float64, where every digit counts, with `SHORTEST` tokens or more from `start` on; otherwise as they are."""
    width = tokens.ids.shape[1]
    missing = min(start + SHORTEST, model.max_length) - width if model.dtype == torch.float64 else 0
    if missing <= 0:
        return tokens
    return Tokens(functional.pad(tokens.ids, (0, missing)), functional.pad(tokens.mask, (0, missing)))
