"""Outcomes, records and results with the numbers that a test gives."""

import math

from errata.results.outcomes import NO_TOKEN, Answer, Outcomes, Question, Record
from errata.results.results import Results

NAN, INF = math.nan, math.inf


def answer(*log_probabilities: float, hits: str | None = None) -> Answer:
    """Tokens 10, 11, ...; `hits` has a `+` where the token is the likeliest one (by default everywhere)."""
    marks = hits or "+" * len(log_probabilities)
    tokens = tuple(range(10, 10 + len(log_probabilities)))
    predicted = tuple(
        token if mark == "+" else NO_TOKEN if mark == "?" else 99
        for token, mark in zip(tokens, marks, strict=True)
    )
    return Answer("text", tokens, tuple(map(float, log_probabilities)), predicted, "said")


def asked(wanted: float, rival: float | None = None, hits: str | None = None) -> Question:
    return Question("prompt", answer(wanted, hits=hits), None if rival is None else answer(rival))


WIN, LOSS = asked(-1, -2), asked(-2, -1)


HIT, MISS = asked(-1, hits="+"), asked(-1, hits="-")


def record(after: Outcomes, before: Outcomes | None = None, case_id: int | str | None = 0) -> Record:
    return Record(case_id, "Jonas Müller", "Jonas Müller lives in", "Zürich", "Bern", "P1", before, after)


def results(*records: Record) -> Results:
    return Results(tuple(records), "tiny", "abc", {"method": "pmet", "layers": [1, 2]}, {"dtype": "float64"})
