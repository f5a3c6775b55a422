"""The contexts of an edit: short prefix texts behind which the new fact must hold too.

The set is the empty context and a few texts that the unedited model itself writes: five as a rule, twenty for ROME. It
is sampled once, seeded, and recorded with the edit; every stage of an edit uses the same one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from errata.errors import SettingsError
from errata.models import EditableModel
from errata.passes.continuing import next_logits
from errata.passes.prompts import encode_text, pad

STARTS = ("The", "Therefore", "Because", "I", "You")
LENGTH = 10
TOP_K = 5
SHORT: tuple[tuple[int, int], ...] = ((LENGTH, 1),)
"""The rule: of each start word, one text of ten tokens."""
SHORT_AND_SHORTER: tuple[tuple[int, int], ...] = ((5, 2), (LENGTH, 2))
"""ROME's: ten texts of five tokens and ten of ten, two of each start word."""


def sample_contexts(
    model: EditableModel, seed: int = 0, shape: Sequence[tuple[int, int]] = SHORT
) -> tuple[str, ...]:
    """The empty context, then texts that continue each start word, each ending in a full stop; none twice.

    `shape` has pairs of tokens in all and texts of each start word. Sampled from the model's five likeliest tokens
    (MEMIT section 4; METHODS.md, "Contexts"), on the CPU's seeded generator, so that one seed gives one set on every
    device. A text that turns out like an earlier one goes on until it differs.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = [list(encode_text(model, start, None).ids) for start in STARTS]
    wanted = [(tokens, start) for tokens, each in shape for _ in range(each) for start in starts]
    ids = [list(start) for _, start in wanted]
    around = set(model.tokenizer.all_special_ids)
    added = model.tokenizer.added_tokens_decoder
    barred = around | {number for number, token in added.items() if token.special}

    def read(row: Sequence[int]) -> str:
        return _as_context(str(model.tokenizer.decode([token for token in row if token not in around])))

    def grow(growing: Sequence[int], logits: Float[Tensor, "row vocab"]) -> None:
        for row, index in enumerate(growing):
            ids[index].append(_draw(logits[row], barred, generator))

    kept = _Kept.of(model, ids)
    while growing := [index for index, (tokens, _) in enumerate(wanted) if len(ids[index]) < tokens]:
        grow(growing, kept.next_logits(ids, growing))
    while True:
        texts = [read(row) for row in ids]
        growing = [index for index, text in enumerate(texts) if text in texts[:index]]
        if not growing:
            return ("", *texts)
        grow(growing, _next_logits(model, [ids[index] for index in growing]))


def check_contexts(contexts: Sequence[str]) -> tuple[str, ...]:
    """The user's contexts, if they can serve: the empty one first, then texts, none twice.

    White space at their ends is dropped, as one space joins each to the prompt.

    Raises:
        SettingsError: otherwise, naming the offending one.
    """
    given = cast("Sequence[object]", contexts)
    if isinstance(given, str) or not all(isinstance(text, str) for text in given):
        raise SettingsError(f"The contexts must be a list of texts, and are {contexts!r}.")
    contexts = [text.rstrip() for text in contexts]
    if not contexts or contexts[0] != "":
        raise SettingsError(
            'The first context must be the empty text "": values and keys are read behind it.'
        )
    for number, text in enumerate(contexts[1:], start=1):
        if not text.strip():
            raise SettingsError(f"Context {number} is empty. Only the first one may be.")
        if "{}" in text:
            raise SettingsError(
                f"Context {number}, {text!r}, holds a '{{}}'. Give only the text that stands before the prompt."
            )
        if text in contexts[:number]:
            raise SettingsError(f"Context {number}, {text!r}, stands there twice.")
    return tuple(contexts)


@dataclass
class _Kept:
    """Rows that grow by a token at a time, in groups of one length, with the keys and values of earlier tokens."""

    model: EditableModel
    groups: Sequence[Sequence[int]]
    caches: list[Cache | None]
    widths: list[int]
    """How many tokens of each group have been fed."""

    @classmethod
    def of(cls, model: EditableModel, ids: Sequence[Sequence[int]]) -> "_Kept":
        lengths = sorted({len(row) for row in ids})
        groups = [[index for index, row in enumerate(ids) if len(row) == length] for length in lengths]
        return cls(model, groups, [None] * len(groups), [0] * len(groups))

    def next_logits(self, ids: Sequence[Sequence[int]], growing: Sequence[int]) -> Float[Tensor, "row vocab"]:
        """The logits after each of the growing rows, whose groups have one length each; finished rows are padded."""
        found: dict[int, Tensor] = {}
        for number, group in enumerate(self.groups):
            going = [index for index in group if index in growing]
            if not going:
                continue
            width, before = len(ids[going[0]]), self.widths[number]
            new = [[*ids[index], *[0] * (width - len(ids[index]))][before:] for index in group]
            fed = torch.tensor(new, device=self.model.device)
            logits, self.caches[number] = next_logits(self.model, fed, width, self.caches[number])
            self.widths[number] = width
            found |= {index: logits[row].float().cpu() for row, index in enumerate(group) if index in going}
        return torch.stack([found[index] for index in growing])


def _next_logits(model: EditableModel, ids: Sequence[Sequence[int]]) -> Float[Tensor, "row vocab"]:
    last = torch.tensor([len(row) - 1 for row in ids])
    with torch.no_grad():
        return model.logits_at(pad(ids, model), torch.arange(len(ids)), last).float().cpu()


def _draw(logits: Float[Tensor, " vocab"], barred: set[int], generator: torch.Generator) -> int:
    """One of the likeliest tokens, never a special one: an end of text inside a prefix would cut it off."""
    logits = logits.clone()
    logits[sorted(token for token in barred if token < len(logits))] = -torch.inf
    best, tokens = logits.topk(TOP_K)
    chosen: Int[Tensor, " one"] = torch.multinomial(best.softmax(dim=0), 1, generator=generator)
    return int(tokens[chosen])


def _as_context(text: str) -> str:
    """One line without braces (they would look like a subject's place) that ends in a full stop."""
    flat = re.sub(r"\s+", " ", text.replace("{", " ").replace("}", " ")).strip()
    return f"{flat}."
