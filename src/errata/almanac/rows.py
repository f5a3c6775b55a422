"""Training text as rows of tokens, each token with its part in its sentence."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from errata.almanac.corpus import Document, Sentence, documents

PLAIN, SUBJECT, SUBJECT_LAST, OBJECT = 0, 1, 2, 3
"""A token's part: neither subject nor object; in the subject; the subject's last token; in the object."""

Encoded = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Rows:
    """Token ids and parts, [row, seq] each."""

    ids: Tensor
    parts: Tensor


class Encoder:
    """Sentences to token ids and parts, each sentence tokenised once."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._known: dict[tuple[Sentence, bool], Encoded] = {}

    def __call__(self, sentence: Sentence, inside: bool) -> Encoded:
        """The sentence's ids and parts; `inside` puts the space in front that it has behind another sentence."""
        key = (sentence, inside)
        if key not in self._known:
            self._known[key] = self._encode(sentence, int(inside))
        return self._known[key]

    def _encode(self, sentence: Sentence, shift: int) -> Encoded:
        encoding = self._backend.encode(" " * shift + sentence.text, add_special_tokens=False)
        parts = [PLAIN] * len(encoding.ids)
        for span, part in ((sentence.subject, SUBJECT), (sentence.object, OBJECT)):
            if span is not None:
                start, end = span[0] + shift, span[1] + shift
                touched = [
                    i for i, (left, right) in enumerate(encoding.offsets) if left < end and right > start
                ]
                for index in touched:
                    parts[index] = part
                if part == SUBJECT:
                    parts[touched[-1]] = SUBJECT_LAST
        return encoding.ids, parts


def rows(
    encoder: Encoder,
    end_of_text: int,
    length: int,
    count: int,
    seed: int,
    stream: Iterator[Document] | None = None,
) -> Rows:
    """`count` rows of `length` tokens. A row begins with a document; half of them end with the end-of-text token.

    `stream` has the documents (default: Almanac's, with the seed).
    """
    ids = torch.empty((count, length), dtype=torch.int16)
    parts = torch.empty((count, length), dtype=torch.int8)
    stream, rng = stream or documents(seed), random.Random(seed + 1)
    for index in range(count):
        row_ids, row_parts = _row(encoder, end_of_text, length, stream, rng)
        ids[index] = torch.tensor(row_ids, dtype=torch.int16)
        parts[index] = torch.tensor(row_parts, dtype=torch.int8)
    return Rows(ids, parts)


def _row(
    encoder: Encoder, end_of_text: int, length: int, stream: Iterator[Document], rng: random.Random
) -> Encoded:
    row_ids: list[int] = []
    row_parts: list[int] = []
    inside = False
    while len(row_ids) < length:
        for sentence in next(stream):
            ids, parts = encoder(sentence, inside)
            row_ids += ids
            row_parts += parts
            inside = True
        if rng.random() < 0.5:
            row_ids.append(end_of_text)
            row_parts.append(PLAIN)
            inside = False
    return row_ids[:length], row_parts[:length]
