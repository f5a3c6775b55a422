"""What a model wrote by itself, and how it took to plain texts: raw outcomes, as `errata.outcomes` keeps them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from errata.runtime import Form, JsonMismatch, float_from_json, float_to_json

ANSWER_END = re.compile(r"""\s*(?:[.!?]["')\]]*(?:\s|$)|\n|$)""")
"""What may stand behind an answer that is complete."""
LARGEST = math.log(1e300)


@dataclass(frozen=True)
class Continuation:
    """What the model went on to write by itself after a prompt, each time its likeliest token (free-running)."""

    prompt: str
    target: str
    target_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    """As many as the target has; fewer where the model ended its text or the context was full."""
    answer: str
    """Those tokens as text."""
    text: str
    """The continuation up to the end of its sentence, or of what was generated."""
    whole: str | None = None
    """All that was generated, at least two tokens beyond the target's number; None in files of schema 1."""

    @property
    def exact(self) -> bool:
        """Whether the model wrote the target: the same text, or the same tokens."""
        return self.tokens == self.target_tokens or self.answer == self.target

    @property
    def complete(self) -> bool | None:
        """Whether the model wrote the target and then ended its sentence, its line or its text; None: not kept."""
        if self.whole is None:
            return None
        after = self.whole.removeprefix(self.target)
        return self.whole.startswith(self.target) and ANSWER_END.match(after) is not None


@dataclass(frozen=True)
class Writing:
    """What the model wrote, sampled, after the generation prompts of a fact, and the two numbers that tell of it."""

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    """One for each prompt, without it."""
    fluency: float
    """The weighted mean of the texts' 2- and 3-gram entropies, in bits."""
    consistency: float | None = None
    """The cosine of the texts' TF-IDF vector with the reference texts'; None without any."""


def _read_plain_text(pair: Any, name: str) -> PlainText:
    match pair:
        case [int(tokens), log_probability] if tokens >= 2:
            return PlainText(tokens, float_from_json(log_probability, name))
        case _:
            raise JsonMismatch(
                f"A plain text must be a list of its number of tokens and its log P, and is {pair!r}."
            )


@dataclass(frozen=True)
class PlainText:
    """How likely a model found a text that no fact is about."""

    JSON: ClassVar = Form(
        write=lambda text: [text.tokens, float_to_json(text.log_probability)], read=_read_plain_text
    )

    tokens: int
    """How many the text has; the first of them is not predicted."""
    log_probability: float
    """The sum over its tokens but the first, natural logarithm."""

    @property
    def perplexity(self) -> float:
        """exp(-(1/N) sum log P), N the number of tokens: the published program's (ME-PPL-50)."""
        return _exp(-self.log_probability / self.tokens)

    @property
    def textbook_perplexity(self) -> float:
        """exp(-(1/(N-1)) sum log P), N - 1 the number of tokens that are predicted."""
        return _exp(-self.log_probability / (self.tokens - 1))


def _exp(value: float) -> float:
    """exp, as large as a number can be where it would be larger; not a number stays so."""
    return value if math.isnan(value) else math.exp(min(value, LARGEST))
