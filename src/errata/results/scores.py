"""From raw outcomes to scores: pure functions of records, and nothing but them.

A metric (`errata.metrics`) gives each record a number, or None where the record cannot tell. A score is the mean over
the records that can, with its 95 % confidence interval. docs/evaluation.md explains each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from errata.results.groups import GROUPS, QuestionGroup
from errata.results.metrics import REGISTRY, RecordMetric, TextMetric, metrics_of
from errata.results.outcomes import Phase, Record
from errata.results.written import PlainText

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


METRICS: dict[str, RecordMetric] = {
    name: metric.of_record for name, metric in REGISTRY.items() if metric.of_record is not None
}
"""The metrics that are means over records."""

TEXT_METRICS: dict[str, TextMetric] = {
    name: metric.of_text for name, metric in REGISTRY.items() if metric.of_text is not None
}
"""The metrics that are means over plain texts."""

HARMONIC: dict[str, tuple[str, str, str]] = {
    name: metric.harmonic for name, metric in REGISTRY.items() if metric.harmonic is not None
}
"""The scores that are harmonic means of three metrics."""

LABELS: dict[str, str] = {name: metric.label for name, metric in REGISTRY.items()}
"""Every score's name for people, in the order in which scores are reported."""


def add_group(group: QuestionGroup) -> None:
    """Declare one more group of questions: from now on it is asked, scored and shown.

    Raises:
        ValueError: there is one of that name.
    """
    if group.name in GROUPS:
        raise ValueError(f"There is a group of questions {group.name!r} already. Take another name.")
    GROUPS[group.name] = group
    for metric in metrics_of(group).values():
        assert metric.of_record is not None
        REGISTRY[metric.name] = metric
        METRICS[metric.name] = metric.of_record
        LABELS[metric.name] = metric.label


def score_records(
    records: Sequence[Record], phase: Phase, texts: Sequence[PlainText] = ()
) -> dict[str, Score | None]:
    """Every score of one phase, by name; None where no record can tell. `texts` are those read in that phase."""
    values = {name: [metric(record, phase) for record in records] for name, metric in METRICS.items()}
    scores = {name: mean_score(each) for name, each in values.items()}
    scores |= {name: harmonic_score([values[part] for part in parts]) for name, parts in HARMONIC.items()}
    scores |= {name: mean_score([metric(text) for text in texts]) for name, metric in TEXT_METRICS.items()}
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
