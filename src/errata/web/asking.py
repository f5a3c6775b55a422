"""What a model says: its likeliest next tokens, and how it goes on by itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from errata.evaluation import continue_texts, encode_at, log_probabilities
from errata.models import EditableModel
from errata.passes import pad

SHOWN = 5
"""Tokens."""
LENGTH = 24
"""Of a free continuation, in tokens."""
ANSWER = 6
"""The longest answer that is taken from what a model says, in tokens."""
ANSWER_END = re.compile(r"[.,;:!?\n\"()]")


@dataclass(frozen=True)
class Token:
    """A token that may come next."""

    text: str
    probability: float


@dataclass(frozen=True)
class Said:
    """What a model says after a prompt."""

    prompt: str
    tokens: tuple[Token, ...]
    """The likeliest next ones, likeliest first."""
    text: str
    """What it writes by itself, always the likeliest token, up to the end of a sentence."""


def ask(model: EditableModel, prompt: str, count: int = SHOWN) -> Said:
    """Ask the model as it stands.

    Raises:
        PromptTooLong: the prompt does not fit the model.
    """
    ids = encode_at(model, prompt, None, "This question").ids
    last = torch.tensor([len(ids) - 1])
    with torch.no_grad():
        logits = model.logits_at(pad([ids], model), torch.tensor([0]), last)
    best, tokens = log_probabilities(logits)[0].exp().topk(min(count, logits.shape[-1]))
    likeliest = zip(cast("list[int]", tokens.tolist()), cast("list[float]", best.tolist()), strict=True)
    said = tuple(Token(str(model.tokenizer.decode([token])), probability) for token, probability in likeliest)
    return Said(prompt, said, continue_texts(model, [prompt], LENGTH)[0])


def answers(model: EditableModel, prompts: Sequence[str]) -> list[str]:
    """What the model, as it stands, answers in a few words; empty where it says nothing.

    Raises:
        PromptTooLong: a prompt does not fit the model.
    """
    said = continue_texts(model, prompts, ANSWER)
    return [ANSWER_END.split(text.strip(), maxsplit=1)[0].strip() for text in said]
