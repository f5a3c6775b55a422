"""The objective: bounds first, then what is kept."""

import math
from dataclasses import replace

import pytest

from errata.calibrate.objective import Measures, score, shortfalls

BEFORE = Measures(efficacy=0.0, paraphrases=5.0, specificity=86.0, statements=100.0, perplexity=20.0)
GOOD = Measures(efficacy=100.0, paraphrases=95.0, specificity=84.0, statements=50.0, perplexity=20.4)


def test_within_the_bounds_it_is_what_is_kept() -> None:
    assert shortfalls(GOOD, BEFORE) == {}
    assert score(GOOD, BEFORE) == 50.0
    assert score(replace(GOOD, statements=None), BEFORE) == 0.0


@pytest.mark.parametrize(
    ("name", "value", "points"),
    [
        ("efficacy", 96.0, 2.0),
        ("paraphrases", 90.0, 5.0),
        ("specificity", 83.0, 1.0),
        ("perplexity", 20.6, 1.0),
    ],
)
def test_a_bound_that_is_missed_counts_in_points(name: str, value: float, points: float) -> None:
    worse = replace(GOOD, **{name: value})
    assert shortfalls(worse, BEFORE) == {name: pytest.approx(points)}
    assert score(worse, BEFORE) == pytest.approx(-points)


def test_anything_within_the_bounds_is_better_than_anything_outside() -> None:
    nothing_kept, all_kept = replace(GOOD, statements=0.0), replace(GOOD, efficacy=97.9, statements=100.0)
    broken = replace(GOOD, perplexity=math.nan)
    scores = [score(one, BEFORE) for one in (nothing_kept, all_kept, broken, None)]
    assert scores == sorted(scores, reverse=True)
    assert all(math.isfinite(each) for each in scores)


def test_what_cannot_be_asked_is_no_bound() -> None:
    assert shortfalls(replace(GOOD, paraphrases=None, specificity=None), BEFORE) == {}
