"""What causal tracing found: of each fact the probabilities of its answer, and from them the average indirect effects.

    total effect TE = P[o] - P*[o]      indirect effect IE = P*,restored[o] - P*[o]      (Meng et al. 2022, section 2.1)

P* is the probability with noise on the subject. AIE is the mean of IE over facts, here with its 95 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from errata.errors import ResultsError
from errata.results import Score, mean_score
from errata.runtime import from_json
from errata.settings import layers_by_rule

KINDS = ("state", "ffn", "attention")
"""What is put back: the residual stream behind one block, or the outputs of a window of FFNs, or of attentions."""
TITLES = {"state": "single states", "ffn": "FFN outputs", "attention": "attention outputs"}

Span = tuple[int, int]


def _one(position: Callable[[Span, int], int]) -> Callable[[Span, int], range]:
    def chosen(subject: Span, length: int) -> range:
        start = position(subject, length)
        return range(start, start + 1) if start < length else range(0)

    return chosen


GROUPS: Mapping[str, Callable[[Span, int], range]] = {
    "first subject token": _one(lambda subject, _: subject[0]),
    "middle subject tokens": lambda subject, _: range(subject[0] + 1, subject[1] - 1),
    "last subject token": _one(lambda subject, _: subject[1] - 1),
    "first token after": _one(lambda subject, _: subject[1]),
    "further tokens": lambda subject, length: range(subject[1] + 1, length - 1),
    "last token": _one(lambda _, length: length - 1),
}
"""The tokens of a group, from where the subject begins and ends and the prompt's length.

As in the published program, a token may be in two groups: the one token of a subject is its first and its last.
"""
DECISIVE = "last subject token"
"""The group whose effects tell the critical layers."""


@dataclass(frozen=True)
class Effects:
    """One fact, traced. Probabilities are of the first token of its true answer, means over the draws of noise."""

    subject: str
    question: str
    answer: str
    answer_token: str
    tokens: tuple[str, ...]
    """Of the question, as text."""
    subject_tokens: Span
    """The first token of the subject and the one behind its last."""
    clean: float
    noised: float
    restored: Mapping[str, tuple[tuple[float, ...], ...]]
    """By kind, layer and token."""

    @property
    def total_effect(self) -> float:
        """P[o] - P*[o]."""
        return self.clean - self.noised

    def indirect(self, kind: str, group: str, layer: int) -> float | None:
        """IE at a layer, the mean over the tokens of a group; None where the question has no such token."""
        places = GROUPS[group](self.subject_tokens, len(self.tokens))
        values = [self.restored[kind][layer][place] - self.noised for place in places]
        return math.fsum(values) / len(values) if values else None


def effects_from_json(value: object) -> Effects:
    """The opposite of `to_json`.

    Raises:
        ResultsError: something is missing or of the wrong type.
    """
    try:
        effects = from_json(Effects, value, "it")
    except ValueError as error:
        raise ResultsError(f"This is no traced fact ({error})") from error
    if not effects.restored.keys() >= set(KINDS):
        raise ResultsError(f"This is no traced fact: restored must have {', '.join(KINDS)}.")
    return effects


def average(effects: Sequence[Effects], kind: str, group: str) -> list[Score | None]:
    """AIE at each layer with its interval over facts; a fact without tokens of the group does not count.

    NOTE: the tokens of a group are averaged within a fact first; the published program pools them over all facts.
    """
    layers = len(effects[0].restored[kind])
    return [mean_score(one.indirect(kind, group, layer) for one in effects) for layer in range(layers)]


def critical_layers(effects: Sequence[Effects]) -> tuple[tuple[int, ...], int]:
    """The blocks that an edit of several should write, and the one for a method that writes one.

    At the block whose output, put back at the subject's last token, has the largest AIE, what the model knows of the
    subject is together; what is written must be there by then. So: as many consecutive blocks as `layers_by_rule`
    takes (five, fewer in a shallow model), up to that one. The one is their middle.

    NOTE: not the largest AIE of FFN windows. The FFN of block 0 reads bare embeddings: to put back its output is to put
    back which token it was, and where that outweighs the rest, as in a small model, it says nothing of facts.
    """
    means = [0.0 if score is None else score.mean for score in average(effects, "state", DECISIVE)]
    count = len(layers_by_rule(len(means)))
    last = max(range(len(means)), key=lambda layer: (means[layer], -layer))
    first = min(max(0, last - count + 1), len(means) - count)
    several = tuple(range(first, first + count))
    return several, several[(count - 1) // 2]
