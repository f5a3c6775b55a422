"""Values that do not do what they are for: an optimized value must make the model say its target.

With `values.least_probability`, a fact whose value stays below it is optimized again with more room, step by step of a
short ladder; the first value that reaches it is taken. One that never does is no value: the fact is left out, with the
probability that it came to, unless `values.write_unfound` asks for the best of them.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from errata.facts import Fact
from errata.passes import Lookup
from errata.values.descent import Outcome
from errata.values.settings import ValueSettings, ValueSite

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rung:
    """One more try: by what the settings are multiplied."""

    steps: int
    clamp: float
    rate: float


LADDER = (Rung(steps=2, clamp=2.0, rate=1.0), Rung(steps=2, clamp=4.0, rate=2.0))
"""First more room and more steps, then larger ones too."""


@dataclass(frozen=True)
class ClimbedSite:
    """A site with the settings of a rung."""

    layers: tuple[int, ...]
    lookup: Lookup
    values: ValueSettings


def on_rung(site: ValueSite, rung: Rung) -> ClimbedSite:
    """The site with its settings multiplied."""
    own = site.values
    rate, scale = own.learning_rate, own.learning_rate_scale
    values = replace(
        own,
        steps=own.steps * rung.steps,
        clamp=own.clamp * rung.clamp,
        learning_rate=None if rate is None else rate * rung.rate,
        learning_rate_scale=None if scale is None else scale * rung.rate,
    )
    return ClimbedSite(site.layers, site.lookup, values)


def climb(
    facts: Sequence[Fact],
    site: ValueSite,
    outcomes: Sequence[Outcome],
    fixed: Sequence[int],
    optimize: Callable[[ValueSite, list[int], int], Sequence[Outcome]],
) -> tuple[Outcome, ...]:
    """The outcomes with better ones for those that reach too little; `fixed` are taken as they are.

    `optimize` finds the values of some facts at a site again, and is given the number of the rung.
    """
    least = site.values.least_probability
    best: list[Outcome] = [*outcomes]
    if least is None:
        return tuple(best)
    low: list[int] = [
        index for index in range(len(best)) if index not in set(fixed) and _reached(best[index]) < least
    ]
    for number, rung in enumerate(LADDER, start=1):
        if not low:
            break
        for index, outcome in zip(low, optimize(on_rung(site, rung), low, number), strict=True):
            if not _reached(outcome) <= _reached(best[index]):
                best[index] = replace(outcome, rung=number)
        low = [index for index in low if _reached(best[index]) < least]
    for index in low:
        best[index] = replace(best[index], found=site.values.write_unfound)
        logger.info(
            "No value makes the model say %r about %r: its probability came to %.2g.",
            facts[index].target_new,
            facts[index].subject,
            best[index].probability,
        )
    return tuple(best)


def _reached(outcome: Outcome) -> float:
    """The probability of the target; infinite where the loss is no number, which is a failure of its own."""
    probability = outcome.probability
    return math.inf if math.isnan(probability) else probability
