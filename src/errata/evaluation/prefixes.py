"""The prompt behind a prefix of unrelated text: does the new fact hold when it is not the first thing that is read?"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from errata.errors import FactError
from errata.evaluation.questions import Ask, Sheet
from errata.facts import joined
from errata.models import EditableModel
from errata.passes import encode_text

LENGTH = 50
"""Tokens of a prefix, at most; as many whole words as fit, so it may be a token or two fewer."""
COUNT = 10
"""Different prefixes; a fact's is told by its question alone."""
SENTENCES = Path(__file__).parent / "prefixes.txt"
MARGIN = 8
"""Tokens that a tokenizer may add to a text beyond its bytes: special ones."""


def unrelated_prefixes(model: EditableModel, length: int = LENGTH) -> tuple[str, ...]:
    """Everyday text without names, in the words of the model's tokenizer: each ends with a sentence's end."""
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    return tuple(_prefix(model, sentences, number, length) for number in range(COUNT))


def with_prefixed(model: EditableModel, sheets: Sequence[Sheet]) -> list[Sheet]:
    """The sheets with each fact's prompt behind one of the prefixes, where the model's context has room for both."""
    prefixes = unrelated_prefixes(model)
    return [_with_prefixed(model, sheet, prefixes) for sheet in sheets]


def _with_prefixed(model: EditableModel, sheet: Sheet, prefixes: Sequence[str]) -> Sheet:
    fact = sheet.fact
    prefix = prefixes[zlib.crc32(fact.question.encode()) % len(prefixes)]
    prompt = f"{prefix} {fact.question}"
    ask = Ask(prompt, fact.target_new, fact.target_true)
    if not all(_fits(model, prompt, answer, fact.join) for answer in ask.answers):
        return sheet
    return replace(sheet, groups={**sheet.groups, "prefixed": (ask,)})


def _fits(model: EditableModel, prompt: str, answer: str, join: str | None) -> bool:
    """Whether both are within the context; a text of few bytes has few tokens, and is not tokenised here."""
    if len(joined(prompt, answer, join).encode()) + MARGIN <= model.max_length:
        return True
    try:
        encode_text(model, prompt, answer, join)
    except FactError:
        return False
    return True


def _tokens(model: EditableModel, text: str) -> int:
    """How many tokens the text has, special ones not counted; it may exceed the context."""
    return len(model.tokenizer.encode(text, add_special_tokens=False))


def _prefix(model: EditableModel, sentences: Sequence[str], number: int, length: int) -> str:
    """The end of the sentences in a shuffled order: the longest one of whole words within the length."""
    order = list(sentences)
    random.Random(number).shuffle(order)
    words = " ".join(order).split()[-length:]
    while len(words) > 1 and _tokens(model, " ".join(words)) > length:
        words = words[1:]
    return " ".join(words)
