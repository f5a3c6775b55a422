"""What was measured, and the scores computed from it: raw outcomes per question, metrics as pure functions."""

from errata.results.groups import (
    GROUPS,
    Ask,
    Block,
    Edited,
    PageSection,
    QuestionGroup,
    ask_probes,
    classic_groups,
)
from errata.results.metrics import REGISTRY
from errata.results.outcomes import NO_TOKEN, Answer, Outcomes, Phase, Question, Record, outcomes_of
from errata.results.results import FILE, KIND, Results, TableRow, load_results
from errata.results.scores import LABELS, Score, add_group, mean_score, score_records
from errata.results.written import Continuation, PlainText, Writing

__all__ = [
    "FILE",
    "GROUPS",
    "KIND",
    "LABELS",
    "NO_TOKEN",
    "REGISTRY",
    "Answer",
    "Ask",
    "Block",
    "Continuation",
    "Edited",
    "Outcomes",
    "PageSection",
    "Phase",
    "PlainText",
    "Question",
    "QuestionGroup",
    "Record",
    "Results",
    "Score",
    "TableRow",
    "Writing",
    "add_group",
    "ask_probes",
    "classic_groups",
    "load_results",
    "mean_score",
    "outcomes_of",
    "score_records",
]
