"""From facts to token rows: which texts are run, where the subject ends in them, and which tokens are to be predicted.

Prompt and target are tokenised as one text, and every position is read off the character offsets. What stands between
the two is decided in `errata.facts` (`join_of`); a context is joined to a prompt by one space.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from errata.errors import EmptyTarget, FactError, PromptTooLong
from errata.facts import Fact, join_of
from errata.models import SHORTEST, EditableModel, Tokens

RowKind = Literal["rewrite", "neighbor", "preserve", "kl"]
KINDS: tuple[RowKind, ...] = ("rewrite", "neighbor", "preserve", "kl")
Lookup = Literal["subject_last", "prompt_last"]
"""Where a row is looked up: at the last token of its subject, or of its whole prompt, before a target."""
KL_TEMPLATE = "{} is a"
PASS_TOKENS, PASS_TOKENS_ELSEWHERE = {"cpu": 20}, 512
"""What a forward pass costs by device whatever is in it, in tokens: its weights have to be read."""
TOKENS_IN_CACHE = {"cpu": 1024}
"""On these devices, more tokens at once are slower: what lies between two products no longer fits the cache."""


@dataclass(frozen=True)
class Row:
    """One text of one fact: a filled-in template, the context before it, and the target to predict after it."""

    fact: int
    kind: RowKind
    template: str
    subject: str
    target: str | None = None
    context: str = ""
    join: str | None = None
    """What stands before the target; None leaves it to `join_of`."""

    @property
    def prompt(self) -> str:
        """The text up to where the target begins."""
        return self._before + self.subject + self.template.partition("{}")[2]

    @property
    def subject_span(self) -> tuple[int, int]:
        """Where the subject begins and ends in `prompt`, in characters."""
        return len(self._before), len(self._before) + len(self.subject)

    @property
    def _before(self) -> str:
        before = self.template.partition("{}")[0]
        return f"{self.context} {before}" if self.context else before


@dataclass(frozen=True)
class EncodedText:
    """The ids of a prompt and of the target after it, without the target's last token, which is never an input."""

    ids: tuple[int, ...]
    target: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    """The characters of each id in the joined text; empty for tokens that the tokenizer adds."""

    @property
    def predicted_at(self) -> range:
        """The positions whose outputs predict the target's tokens, in order."""
        first = len(self.ids) - len(self.target)
        return range(first, first + len(self.target))


@dataclass(frozen=True)
class EncodedRow:
    """A row with its ids and its lookup position."""

    row: Row
    text: EncodedText
    lookup: int


@dataclass(frozen=True)
class PromptBatch:
    """Rows of several facts as one padded batch, with every position that the stages read.

    Rows lie fact by fact, the bare prompt of each fact first. `predict_*` are flat over all target tokens.
    """

    tokens: Tokens
    fact: Int[Tensor, " row"]
    lookup: Int[Tensor, " row"]
    bare: Bool[Tensor, " row"]
    kind: Int[Tensor, " row"]
    """Its number in `KINDS`."""
    predict_row: Int[Tensor, " predicted"]
    predict_at: Int[Tensor, " predicted"]
    predict_id: Int[Tensor, " predicted"]

    def rows_of(self, kind: RowKind) -> Int[Tensor, " chosen"]:
        """The numbers of the rows of that kind."""
        return (self.kind == KINDS.index(kind)).nonzero()[:, 0]

    def of_facts(self, keep: Int[Tensor, " kept"]) -> tuple["PromptBatch", Int[Tensor, " row"]]:
        """The rows of the facts in `keep` alone, and their old numbers; all is numbered anew in the old order."""
        size = int(self.fact.max()) + 1
        new_fact = torch.full((size,), -1, dtype=torch.long, device=self.fact.device)
        new_fact[keep] = torch.arange(len(keep), device=self.fact.device)
        rows = (new_fact[self.fact] >= 0).nonzero()[:, 0]
        new_row = torch.full((len(self.fact),), -1, dtype=torch.long, device=self.fact.device)
        new_row[rows] = torch.arange(len(rows), device=self.fact.device)
        read = new_row[self.predict_row] >= 0
        kept = PromptBatch(
            tokens=self.tokens.rows(rows),
            fact=new_fact[self.fact[rows]],
            lookup=self.lookup[rows],
            bare=self.bare[rows],
            kind=self.kind[rows],
            predict_row=new_row[self.predict_row[read]],
            predict_at=self.predict_at[read],
            predict_id=self.predict_id[read],
        )
        return kept, rows


def rewrite_rows(facts: Sequence[Fact], contexts: Sequence[str]) -> list[Row]:
    """Each fact's prompt behind every context, with its target; the empty context comes first."""
    return [
        Row(index, "rewrite", fact.prompt, fact.subject, fact.target_new, context, fact.join)
        for index, fact in enumerate(facts)
        for context in contexts
    ]


def kl_rows(facts: Sequence[Fact]) -> list[Row]:
    """The neutral prompt "{subject} is a" of each fact, whose next token the edit should leave as it is."""
    return [Row(index, "kl", KL_TEMPLATE, fact.subject) for index, fact in enumerate(facts)]


def neighbor_rows(facts: Sequence[Fact], count: int, context: str = "") -> list[Row]:
    """The first `count` neighbors of each fact with their own answers, behind `context` (paper 2: NA, or NAP)."""
    return [
        Row(index, "neighbor", one.prompt, one.subject, one.target, context, fact.join)
        for index, fact in enumerate(facts)
        for one in fact.neighbors[:count]
    ]


def preserve_rows(facts: Sequence[Fact], count: int) -> list[Row]:
    """The first `count` other prompts about each fact's subject whose next token an edit should leave as it is."""
    return [
        Row(index, "preserve", template, fact.subject)
        for index, fact in enumerate(facts)
        for template in fact.preserve_prompts[:count]
    ]


def wording_rows(facts: Sequence[Fact], count: int) -> list[Row]:
    """The first `count` other wordings of each fact's prompt, bare, with its target."""
    return [
        Row(index, "rewrite", template, fact.subject, fact.target_new, join=fact.join)
        for index, fact in enumerate(facts)
        for template in fact.edit_prompts[:count]
    ]


def encode_text(
    model: EditableModel, prompt: str, target: str | None, join: str | None = None
) -> EncodedText:
    """Tokenise prompt and target as one text, and tell the target's ids by their offsets.

    `join` is what stands between them (default: `join_of`). Where nothing does and one token would hold the end of the
    prompt and the beginning of the target, the two are tokenised apart: nobody who asks could send that token.

    Raises:
        EmptyTarget: nothing is left of the target after tokenisation.
        PromptTooLong: prompt and target do not fit the model's context.
    """
    between = "" if target is None else join_of(prompt, target, join)
    text = f"{prompt}{between}{target or ''}"
    ids, spans = _tokens(model, text)
    boundary, begin = len(prompt), len(prompt) + len(between)
    if target is not None and _straddled(spans, prompt, begin):
        ids, spans = _apart(model, prompt, target) or (ids, spans)
    chosen = (
        [] if target is None else [i for i, span in enumerate(spans) if _in_target(span, boundary, begin)]
    )
    # What follows the space must be there: where all of the target is dropped, the space alone may still be a token.
    if target is not None and not any(spans[i][1] > begin for i in chosen):
        raise EmptyTarget(
            f"Target {target!r} leaves no tokens after {prompt!r}. Give a target that says something."
        )
    length = chosen[-1] if chosen else _without_added_tail(spans)
    if length > model.max_length:
        raise PromptTooLong(
            f"{text!r} has {length} tokens, more than the context of {model.name} ({model.max_length}). Shorten the "
            "prompt or leave the fact out."
        )
    return EncodedText(tuple(ids[:length]), tuple(ids[i] for i in chosen), tuple(spans[:length]))


def encode_rows(
    model: EditableModel, rows: Sequence[Row], lookup: Lookup = "subject_last"
) -> list[EncodedRow]:
    """Tokenise rows and find each one's lookup position.

    "subject_last": the last token that holds a character of the subject. "prompt_last": the token whose output
    predicts the target's first, or the next token of a row without a target.

    Raises:
        FactError: the tokenizer keeps nothing of a subject, or a row does not fit (see `encode_text`).
    """
    return [_encode_row(model, row, lookup) for row in rows]


def batch_rows(model: EditableModel, encoded: Sequence[EncodedRow]) -> PromptBatch:
    """Pad encoded rows (fact by fact) into one batch on the model's device; facts are numbered as they come."""
    device = model.device
    number_of = {fact: number for number, fact in enumerate(dict.fromkeys(row.row.fact for row in encoded))}

    def integers(values: Sequence[int]) -> Int[Tensor, " n"]:
        return torch.tensor(values, dtype=torch.long, device=device)

    predicted = [
        (number, position, identity)
        for number, row in enumerate(encoded)
        for position, identity in zip(row.text.predicted_at, row.text.target, strict=True)
    ]
    bare = [row.row.kind == "rewrite" and not row.row.context for row in encoded]
    return PromptBatch(
        tokens=pad([row.text.ids for row in encoded], model),
        fact=integers([number_of[row.row.fact] for row in encoded]),
        lookup=integers([row.lookup for row in encoded]),
        bare=torch.tensor(bare, dtype=torch.bool, device=device),
        kind=integers([KINDS.index(row.row.kind) for row in encoded]),
        predict_row=integers([p[0] for p in predicted]),
        predict_at=integers([p[1] for p in predicted]),
        predict_id=integers([p[2] for p in predicted]),
    )


def pad(ids: Sequence[Sequence[int]], model: EditableModel) -> Tokens:
    """Right-pad rows of ids to the longest.

    The filler is 0, which every model has: a tokenizer's own padding token may lie beyond the embeddings. It never
    matters, as no real token sees what stands right of it.
    """
    shortest = SHORTEST if model.dtype == torch.float64 else 1
    longest = max(shortest, max(map(len, ids), default=0))
    padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in ids])
    mask = torch.arange(longest)[None, :] < lengths[:, None]
    return Tokens(padded.reshape(len(ids), longest).to(model.device), mask.to(model.device))


def by_length(lengths: Sequence[int], at_once: int) -> Iterator[list[int]]:
    """Indices in groups of at most `at_once`, longest first, so that little of a batch is padding."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for start in range(0, len(order), at_once):
        yield order[start : start + at_once]


def like_lengths(lengths: Sequence[int], tokens_at_once: int, device: torch.device) -> Iterator[list[int]]:
    """Indices in groups to be run together, longest first: as few as pay, and each as little padded as pays.

    Of all ways to cut the lengths, in order, into groups, the one with the least sum of (what a pass costs + rows *
    longest). No group has more than `tokens_at_once` tokens, padding included, unless it is a single row.
    """
    by_length: dict[int, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        by_length.setdefault(lengths[index], []).append(index)
    sizes = list(by_length)
    fixed = PASS_TOKENS.get(device.type, PASS_TOKENS_ELSEWHERE)
    least: list[tuple[int, int]] = [
        (0, 0)
    ]  # the cost of the first so many lengths, and where their last group begins
    for end in range(1, len(sizes) + 1):
        rows, best = 0, (2**62, 0)
        for begin in reversed(range(end)):
            rows += len(by_length[sizes[begin]])
            best = min(best, (least[begin][0] + fixed + rows * sizes[begin], begin))
        least.append(best)
    cuts = [len(sizes)]
    while cuts[-1] > 0:
        cuts.append(least[cuts[-1]][1])
    for begin, end in zip(cuts[:0:-1], cuts[-2::-1], strict=True):
        group = [index for size in sizes[begin:end] for index in by_length[size]]
        at_once = max(1, tokens_at_once // max(1, sizes[begin]))
        for start in range(0, len(group), at_once):
            yield group[start : start + at_once]


def _encode_row(model: EditableModel, row: Row, lookup: Lookup) -> EncodedRow:
    try:
        text = encode_text(model, row.prompt, row.target, row.join)
    except FactError as error:
        raise type(error)(f"Subject {row.subject!r}: {error}") from None
    start, end = row.subject_span
    inside = [i for i, (left, right) in enumerate(text.spans) if left < end and right > start]
    if not inside:
        raise FactError(
            f"The tokenizer of {model.name} keeps nothing of subject {row.subject!r} in {row.prompt!r}."
        )
    prompt_last = len(text.ids) - max(1, len(text.target))
    # A token that holds the end of the subject and the beginning of the target is predicted: the one before it is read.
    return EncodedRow(row, text, prompt_last if lookup == "prompt_last" else min(inside[-1], prompt_last))


def _tokens(model: EditableModel, text: str, special: bool = True) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a text, and the characters of each."""
    encoding = model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=special)
    ids = cast("list[int]", encoding["input_ids"])
    return ids, cast("list[tuple[int, int]]", encoding["offset_mapping"])


def _in_target(span: tuple[int, int], boundary: int, begin: int) -> bool:
    """Whether a token belongs to the target: it begins behind the prompt, or holds more than what stands between."""
    start, end = span
    return end > boundary and (start >= boundary or end > begin)


def _straddled(spans: Sequence[tuple[int, int]], prompt: str, begin: int) -> bool:
    """Whether a token holds the end of the prompt, white space aside, and the beginning of the target behind it."""
    last = len(prompt.rstrip())
    return begin == len(prompt) and any(start < last and end > begin for start, end in spans)


def _apart(model: EditableModel, prompt: str, target: str) -> tuple[list[int], list[tuple[int, int]]] | None:
    """Prompt and target tokenised by themselves, the target as behind a line's end: without a space of its own.

    None where the tokenizer puts the line's end and the target's beginning into one token.
    """
    ids, spans = _tokens(model, prompt)
    length = _without_added_tail(spans)
    own, places = _tokens(model, f"\n{target}", special=False)
    if any(start < 1 < end for start, end in places):
        return None
    behind = [number for number, (start, end) in enumerate(places) if start >= 1 and end > start]
    moved = [(places[n][0] - 1 + len(prompt), places[n][1] - 1 + len(prompt)) for n in behind]
    return [*ids[:length], *(own[n] for n in behind)], [*spans[:length], *moved]


def _without_added_tail(spans: Sequence[tuple[int, int]]) -> int:
    """How many tokens stand before those that the tokenizer appends on its own, such as an end of text."""
    length = len(spans)
    while length > 1 and spans[length - 1][0] == spans[length - 1][1]:
        length -= 1
    return length
