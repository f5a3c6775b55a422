"""The clean pass: every row once, from its first token on, and what resumed passes take from it.

Rows run in groups of like length, and what many of them begin with, such as a context, runs once for all of them. What
their blocks hand on and their caches hold is kept; `Cut` takes the tokens out of it that a part of the batch asks for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache

from errata.models import SHORTEST, EditableModel, Tokens, fresh, hold, hollow, layers_of
from errata.passes.prompts import PASS_TOKENS, PASS_TOKENS_ELSEWHERE, pad


@dataclass(frozen=True)
class Clean:
    """The clean pass of some rows of a batch."""

    rows: Int[Tensor, " row"]
    first: Int[Tensor, " row"]
    """The first token of each row that ran here: those before are shared, and stand in the cache alone."""
    before: int
    """How many tokens the cache held before."""
    outputs: Mapping[int, Float[Tensor, "... d_model"]]
    """What some blocks hand on."""
    cache: Cache | None
    """None where the model keeps another state of earlier tokens."""
    tuples: bool
    """Whether the family's blocks hand on a tuple."""


def clean_passes(
    model: EditableModel,
    tokens: Tokens,
    groups: Iterable[Tensor],
    ends: Int[Tensor, " row"],
    blocks: Sequence[int],
    entry: int,
    shared: Int[Tensor, " row"],
) -> list[Clean]:
    """Run each group once, up to the last of its ends; keep outputs of `blocks`, caches from `entry` on.

    `shared` says how many first tokens of each row run once for all rows that have them.
    """
    least = SHORTEST if model.dtype == torch.float64 else 1
    prefixes = _Prefixes.of(model, tokens, shared) if shared.any() else None
    passes: list[Clean] = []
    for rows in groups:
        first = shared[rows]
        earlier = prefixes.cache(rows, first) if prefixes else None
        # A cache of whole texts: the model's own would forget what left a sliding window.
        cache = earlier or (DynamicCache() if model.passes.keeps_tokens else None)
        run = max(least, int((ends[rows] - first).max()))
        group = token_window(tokens, rows, first, run, earlier=earlier is not None)
        outputs, tuples = model.block_outputs(group, blocks, cache)
        before = int(first.max())
        for layer in [] if cache is None else layers_of(cache)[:entry]:
            hollow(layer, len(rows), before + run)
        passes.append(Clean(rows, first, before, outputs, cache, tuples))
    return passes


@dataclass(frozen=True)
class _Prefixes:
    """What rows begin with, run once."""

    clean: Clean
    number: Int[Tensor, " row"]
    """Which of them each row of the batch begins with."""

    @classmethod
    def of(cls, model: EditableModel, tokens: Tokens, shared: Int[Tensor, " row"]) -> "_Prefixes":
        ids, counts = cast("list[list[int]]", tokens.ids.tolist()), cast("list[int]", shared.tolist())
        number: dict[tuple[int, ...], int] = {}
        chosen = [
            number.setdefault(tuple(row[:count]), len(number)) for row, count in zip(ids, counts, strict=True)
        ]
        cache, none = DynamicCache(), torch.zeros(len(number), dtype=torch.long, device=shared.device)
        _, tuples = model.block_outputs(pad(list(number), model), [0], cache)
        every = torch.arange(len(number), device=shared.device)
        return cls(
            Clean(every, none, 0, {}, cache, tuples),
            torch.tensor(chosen, dtype=torch.long, device=shared.device),
        )

    def cache(self, rows: Int[Tensor, " group"], counts: Int[Tensor, " group"]) -> Cache | None:
        """Keys and values of what these rows begin with, in every block."""
        return Cut([self.clean], self.number[rows], counts).cache(0)


def shared_beginnings(tokens: Tokens, most: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
    """How many first tokens each row has in common with some other row, at most `most`; 0 where it does not pay."""
    ids, bounds = cast("list[list[int]]", tokens.ids.tolist()), cast("list[int]", most.tolist())
    texts = [tuple(row[:bound]) for row, bound in zip(ids, bounds, strict=True)]
    order = sorted(range(len(texts)), key=texts.__getitem__)
    counts = [0] * len(texts)
    for one, other in pairwise(order):  # no other row has more in common than one of the two beside it
        alike = _in_common(texts[one], texts[other])
        counts[one], counts[other] = max(counts[one], alike), max(counts[other], alike)
    once = sum(map(len, {text[:count] for text, count in zip(texts, counts, strict=True)}))
    fixed = PASS_TOKENS.get(tokens.ids.device.type, PASS_TOKENS_ELSEWHERE)
    return torch.tensor(counts, device=most.device) * (sum(counts) - once > fixed)


def _in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first ids two texts share."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


@dataclass(frozen=True)
class Cut:
    """The tokens of some rows from each row's `start` on, and what the clean passes hold of those before."""

    passes: Sequence[Clean]
    rows: Int[Tensor, " part"]
    start: Int[Tensor, " part"]

    def output(self, block: int, width: int) -> Float[Tensor, "part width d_model"]:
        """What a block hands on at the first `width` tokens."""
        held = [one.outputs[block] for one in self.passes]
        return self._take(held, [one.first for one in self.passes], self.start, width)

    def cache(self, entry: int) -> Cache | None:
        """Keys and values of the tokens before, each row's at the right end; blocks below `entry` hold a shape alone.

        Where a row has fewer tokens before than another, its first places hold numbers that must be masked.
        """
        width, whole = int(self.start.max()), self.passes[0].cache
        if width == 0 or whole is None:
            return None
        cache = fresh(whole)
        for number, layer in enumerate(layers_of(cache)):
            if number < entry:
                hollow(layer, len(self.rows), width)
            else:
                hold(layer, self._earlier("keys", number, width), self._earlier("values", number, width))
        return cache

    def _earlier(self, name: str, block: int, width: int) -> Float[Tensor, "part head width d"]:
        held = [
            cast(Tensor, getattr(layers_of(cast(Cache, one.cache))[block], name)).transpose(1, 2)
            for one in self.passes
        ]
        origins = [one.first - one.before for one in self.passes]
        return self._take(held, origins, self.start - width, width).transpose(1, 2)

    def _take(
        self, held: Sequence[Tensor], origins: Sequence[Tensor], first: Int[Tensor, " part"], width: int
    ) -> Float[Tensor, "part width ..."]:
        """`width` tokens of each row from `first` on; others of its tokens where it has none.

        The first token that a pass holds of a row is the row's token number `origins`.
        """
        taken = held[0].new_empty(len(self.rows), width, *held[0].shape[2:])
        wanted = first[:, None] + torch.arange(width, device=first.device)
        for one, values, origin in zip(self.passes, held, origins, strict=True):
            here, row = (self.rows[:, None] == one.rows[None, :]).nonzero().unbind(dim=1)
            places = (wanted[here] - origin[row][:, None]).clamp(0, values.shape[1] - 1).to(values.device)
            taken[here.to(values.device)] = values[row.to(values.device)[:, None], places]
        return taken


def token_window(
    tokens: Tokens, rows: Int[Tensor, " part"], start: Int[Tensor, " part"], width: int, earlier: bool
) -> Tokens:
    """`width` tokens of each row from `start` on; `earlier` says whether rows have different numbers before."""
    wanted = start[:, None] + torch.arange(width, device=start.device)
    places = wanted.clamp(max=tokens.ids.shape[1] - 1)
    mask = tokens.mask[rows[:, None], places] & (wanted < tokens.ids.shape[1])
    return Tokens(tokens.ids[rows[:, None], places], mask, start if earlier else None)
