"""Many short rows as batches that share what they begin with: a context, or a context and a template's first words.

In a causal model the tokens before a subject do not know what follows: they are run once for all rows that have them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from errata.models import SHORTEST, EditableModel
from errata.passes.prompts import EncodedRow

PADDING = 3
"""Rows run together whose own parts differ by no more tokens, as long as they are not very few."""
FEW = 16
"""Fewer rows than this are not worth a batch of their own."""


@dataclass(frozen=True)
class RowBatch:
    """Rows that run together, right-padded: `start` tokens that others share, then their own up to `last`."""

    rows: Int[Tensor, " row"]
    """Their numbers among all rows."""
    start: int
    prefixes: Int[Tensor, "prefix start"]
    """The ids of the shared parts."""
    prefix_of: Int[Tensor, " row"]
    ids: Int[Tensor, "row seq"]
    """The ids from `start` on."""
    last: Int[Tensor, " row"]
    """Where the row's last token stands in `ids`."""


def batches_of(
    model: EditableModel,
    rows: Sequence[EncodedRow],
    numbers: Sequence[int],
    tokens_at_once: int,
    share: bool = True,
) -> list[RowBatch]:
    """All rows in batches of at most `tokens_at_once` tokens (one row at least); `numbers` are what they are called.

    Without `share` every row runs whole.
    """
    starts = _starts(rows) if share else [0] * len(rows)
    length = [len(row.text.ids) - start for row, start in zip(rows, starts, strict=True)]
    order = sorted(range(len(rows)), key=lambda row: (starts[row], length[row], rows[row].text.ids))
    batches: list[RowBatch] = []
    group: list[int] = []
    for row in order:
        if group and not _fits(group, row, starts, length, tokens_at_once):
            batches.append(
                _batch(model, [rows[one] for one in group], [numbers[one] for one in group], starts[group[0]])
            )
            group = []
        group.append(row)
    if group:
        batches.append(
            _batch(model, [rows[one] for one in group], [numbers[one] for one in group], starts[group[0]])
        )
    return batches


def _fits(group: Sequence[int], row: int, starts: Sequence[int], length: Sequence[int], most: int) -> bool:
    """Whether a row may join the group: rows come in the order of their start and length."""
    return (
        starts[row] == starts[group[0]]
        and (length[row] <= length[group[0]] + PADDING or len(group) < FEW)
        and (starts[row] + length[row]) * (len(group) + 1) <= most
    )


def _starts(rows: Sequence[EncodedRow]) -> list[int]:
    """How many first tokens of each row are run for all rows that have them.

    All in front of the subject, where that costs fewer tokens than the context alone; nothing where nobody shares it.
    """
    before_subject, context = (
        [_tokens_before(row, row.row.subject_span[0]) for row in rows],
        [_tokens_before(row, len(row.row.context)) for row in rows],
    )
    sharing = Counter(row.text.ids[:count] for row, count in zip(rows, before_subject, strict=True))
    sharing_context = Counter(row.text.ids[:count] for row, count in zip(rows, context, strict=True))
    starts: list[int] = []
    for row, long, short in zip(rows, before_subject, context, strict=True):
        if sharing_context[row.text.ids[:short]] < 2:
            short = 0
        among = sharing[row.text.ids[:long]]
        starts.append(long if among * (long - short) > long else short)
    return starts


def _tokens_before(row: EncodedRow, character: int) -> int:
    """How many tokens end at or before a character; at least the last token stays the row's own."""
    count = 0
    for _, end in row.text.spans[:-1]:
        if end > character:
            break
        count += 1
    return count if character else 0


def _batch(model: EditableModel, rows: Sequence[EncodedRow], numbers: Sequence[int], start: int) -> RowBatch:
    """Pad rows that start alike. The filler never matters, as no real token sees what stands right of it."""
    place = {ids: index for index, ids in enumerate(dict.fromkeys(row.text.ids[:start] for row in rows))}
    own = [row.text.ids[start:] for row in rows]
    longest = max(map(len, own))
    if model.dtype == torch.float64:  # where every digit counts
        longest = max(longest, min(SHORTEST, model.max_length - start))
    return RowBatch(
        rows=torch.tensor(numbers),
        start=start,
        prefixes=torch.tensor(list(place)).reshape(len(place), start).long(),
        prefix_of=torch.tensor([place[row.text.ids[:start]] for row in rows]),
        ids=torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in own]),
        last=torch.tensor([len(ids) for ids in own]) - 1,
    )
