"""What was measured, and the scores computed from it: raw outcomes per question, metrics as pure functions."""

from errata.results.metrics import REGISTRY, Block
from errata.results.outcomes import GROUPS, NO_TOKEN, Answer, Outcomes, Phase, Question, Record
from errata.results.results import FILE, KIND, Results, TableRow, load_results
from errata.results.scores import LABELS, Score, mean_score, score_records
from errata.results.written import Continuation, PlainText, Writing

__all__ = [
    "FILE",
    "GROUPS",
    "KIND",
    "LABELS",
    "NO_TOKEN",
    "REGISTRY",
    "Answer",
    "Block",
    "Continuation",
    "Outcomes",
    "Phase",
    "PlainText",
    "Question",
    "Record",
    "Results",
    "Score",
    "TableRow",
    "Writing",
    "load_results",
    "mean_score",
    "score_records",
]
