"""From raw outcomes to scores: pure functions of records, and nothing but them.

A metric gives each record a number between 0 and 1, or None where the record cannot tell. A score is the mean over the
records that can, with its 95 % confidence interval. docs/evaluation.md explains each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from errata.outcomes import NO_TOKEN, Phase, Question, Record

Z = 1.96
"""Half of a 95 % interval of the normal distribution, in standard errors."""


@dataclass(frozen=True)
class Score:
    """A mean over records: `mean` with its 95 % interval from `low` to `high`, of `count` records.

    The interval is None where it cannot be told: for a single record, and for a harmonic mean that is 0.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def margin(self) -> float | None:
        """Half the width of the interval: the number after the plus-minus sign."""
        return None if self.high is None else self.high - self.mean

    def to_json(self) -> dict[str, float | int | None]:
        """The score as a JSON object."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count}


Metric = Callable[[Record, Phase], float | None]


def success(group: str) -> Metric:
    """The share of a group's questions with P(wanted) > P(rival): METHODS "Evaluation", MEMIT section 5.2."""

    def metric(record: Record, phase: Phase) -> float | None:
        return _share(question.success for question in _questions(record, phase, group))

    return metric


def accuracy(group: str) -> Metric:
    """The share of a group's questions of whose wanted answer every token is the likeliest, teacher-forced."""

    def metric(record: Record, phase: Phase) -> float | None:
        return _share(question.wanted.correct for question in _questions(record, phase, group))

    return metric


def unchanged(group: str) -> Metric:
    """The share of a group's questions whose likeliest tokens, where the wanted answer is read, are those of before.

    Only the phase "after" can tell, and only where there is a "before" (paper 2, appendix B.2).
    """

    def metric(record: Record, phase: Phase) -> float | None:
        if phase != "after" or record.before is None:
            return None
        pairs = zip(record.before.group(group), record.after.group(group), strict=True)
        return _share(_same_answer(one, other) for one, other in pairs)

    return metric


def generation(record: Record, phase: Phase) -> float | None:
    """1 where the model, writing freely after the prompt, writes exactly the target."""
    outcomes = record.phase(phase)
    if outcomes is None or outcomes.continuation is None:
        return None
    return float(outcomes.continuation.exact)


METRICS: dict[str, Metric] = {
    "efficacy_success": success("efficacy"),
    "generalization_success": success("generalization"),
    "specificity_success": success("specificity"),
    "efficacy_accuracy": accuracy("efficacy"),
    "generalization_accuracy": accuracy("generalization"),
    "specificity_accuracy": accuracy("specificity"),
    "specificity_unchanged": unchanged("specificity"),
    "generation_accuracy": generation,
    "same_subject_accuracy": accuracy("same_subject"),
    "unrelated_accuracy": accuracy("unrelated"),
}
"""The metrics that are means over records."""

HARMONIC: dict[str, tuple[str, str, str]] = {
    "score_success": ("efficacy_success", "generalization_success", "specificity_success"),
    "score_accuracy": ("efficacy_accuracy", "generalization_accuracy", "specificity_accuracy"),
}
"""The scores that are harmonic means of three metrics."""

LABELS: dict[str, str] = {
    "efficacy_success": "Efficacy, success",
    "generalization_success": "Generalization, success",
    "specificity_success": "Specificity, success",
    "score_success": "Score, success",
    "efficacy_accuracy": "Efficacy, accuracy",
    "generalization_accuracy": "Generalization, accuracy",
    "specificity_accuracy": "Specificity, accuracy",
    "score_accuracy": "Score, accuracy",
    "specificity_unchanged": "Specificity, answer unchanged",
    "generation_accuracy": "Generation, accuracy",
    "same_subject_accuracy": "Same subject, accuracy",
    "unrelated_accuracy": "Unrelated facts, accuracy",
}
"""Every score's name for people, in the order in which scores are reported."""


def score_records(records: Sequence[Record], phase: Phase) -> dict[str, Score | None]:
    """Every score of one phase, by name; None where no record can tell."""
    values = {name: [metric(record, phase) for record in records] for name, metric in METRICS.items()}
    scores = {name: mean_score(each) for name, each in values.items()}
    scores |= {name: harmonic_score([values[part] for part in parts]) for name, parts in HARMONIC.items()}
    return {name: scores[name] for name in LABELS}


def mean_score(values: Iterable[float | None]) -> Score | None:
    """The mean m of the n values that are there, and m +- 1.96 s / sqrt(n), s^2 = sum (x - m)^2 / (n - 1)."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    mean = math.fsum(there) / len(there)
    return _with_interval(mean, [value - mean for value in there], len(there))


def harmonic_score(columns: Sequence[Sequence[float | None]]) -> Score | None:
    """The harmonic mean H of the columns' means m_k: 0 if one of them is 0, None if one of them is not measured.

    The interval is the delta method's: to first order H moves with record i by z_i = sum_k g_k (x_ik - m_k), where
    g_k = dH/dm_k = H^2 / (K m_k^2), and z takes the place of x - m in the interval of a mean. Where a column
    lacks records, each of those it has stands for N / n_k of them.
    """
    means = [mean_score(column) for column in columns]
    if any(mean is None for mean in means):
        return None
    m = [mean.mean for mean in means if mean is not None]
    rows = [row for row in zip(*columns, strict=True) if any(value is not None for value in row)]
    if min(m) == 0:
        return Score(0.0, None, None, len(rows))
    harmonic = len(m) / math.fsum(1 / value for value in m)
    slopes = [harmonic**2 / (len(m) * value**2) for value in m]
    weights = [len(rows) / mean.count for mean in means if mean is not None]
    moves = [
        math.fsum(
            slope * weight * (value - mean)
            for slope, weight, value, mean in zip(slopes, weights, row, m, strict=True)
            if value is not None
        )
        for row in rows
    ]
    return _with_interval(harmonic, moves, len(rows))


def _with_interval(mean: float, deviations: Sequence[float], count: int) -> Score:
    if count < 2:
        return Score(mean, None, None, count)
    variance = math.fsum(deviation**2 for deviation in deviations) / (count - 1)
    half = Z * math.sqrt(variance) / math.sqrt(count)
    return Score(mean, mean - half, mean + half, count)


def _questions(record: Record, phase: Phase, group: str) -> tuple[Question, ...]:
    outcomes = record.phase(phase)
    return () if outcomes is None else outcomes.group(group)


def _share(verdicts: Iterable[bool | None]) -> float | None:
    """The share of the verdicts that are true, of those that were given."""
    given = [verdict for verdict in verdicts if verdict is not None]
    return sum(given) / len(given) if given else None


def _same_answer(one: Question, other: Question) -> bool:
    """Whether the likeliest tokens are the same ones; what is not a number is the same as nothing."""
    return one.wanted.predicted == other.wanted.predicted and NO_TOKEN not in other.wanted.predicted
