"""What calibration looks for: bounds that an edit has to keep, and what is as large as possible within them.

    score = kept                   where every bound holds (0 to 100: larger is better)
    score = - sum of shortfalls    elsewhere: by how many points each bound is missed

So any settings that keep the bounds are better than any that do not. `kept` is the share of other statements about the
edited subjects after which the model goes on with the same token as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from errata.runtime import Form, float_from_json, float_to_json

GOAL = "statements"
"""What is as large as possible."""
NOTHING = 1000.0
"""The shortfall of what is not a number, and of a trial that failed."""


@dataclass(frozen=True)
class Measures:
    """What was measured of a model on some facts, all but perplexity in percent; None where nothing could be asked."""

    efficacy: float
    """Facts of whose new target every token is the likeliest, after the prompt itself (`efficacy_accuracy`)."""
    paraphrases: float | None
    """Other wordings with P(new target) > P(old one) (`generalization_success`)."""
    specificity: float | None
    """Questions about other subjects with P(their answer) > P(new target) (`specificity_success`)."""
    statements: float | None
    """Other statements about the subjects with the same likeliest next token as in the unedited model."""
    perplexity: Annotated[float, Form(write=float_to_json, read=float_from_json)]
    """Mean over plain texts."""


@dataclass(frozen=True)
class Bound:
    """What an edit has to keep, in words and as a number."""

    words: str
    shortfall: Callable[[Measures, Measures], float | None]
    """By how many points it is missed, from what was measured after the edit and of the unedited model."""


def _at_least(value: float | None, least: float | None) -> float | None:
    return None if value is None or least is None else least - value


BOUNDS: Mapping[str, Bound] = MappingProxyType(
    {
        "efficacy": Bound(
            "at least 98 % of the new facts are said", lambda after, _: _at_least(after.efficacy, 98.0)
        ),
        "paraphrases": Bound(
            "at least 95 % of the other wordings prefer the new target",
            lambda after, _: _at_least(after.paraphrases, 95.0),
        ),
        "specificity": Bound(
            "specificity is at most 2 points below that of the unedited model",
            lambda after, before: _at_least(
                after.specificity, None if before.specificity is None else before.specificity - 2.0
            ),
        ),
        "perplexity": Bound(
            "perplexity of plain texts is at most 2 % above that of the unedited model",
            lambda after, before: 100.0 * (after.perplexity / before.perplexity - 1.02),
        ),
    }
)


def shortfalls(after: Measures, before: Measures) -> dict[str, float]:
    """By how many points each bound is missed, those that hold left out."""
    found: dict[str, float] = {}
    for name, bound in BOUNDS.items():
        points = bound.shortfall(after, before)
        if points is not None and not points <= 0:
            found[name] = NOTHING if math.isnan(points) else min(points, NOTHING)
    return found


def score(after: Measures | None, before: Measures) -> float:
    """The objective: larger is better. None stands for a trial that failed."""
    if after is None:
        return -NOTHING * len(BOUNDS)
    missed = shortfalls(after, before)
    if missed:
        return -math.fsum(missed.values())
    return 0.0 if after.statements is None else after.statements
