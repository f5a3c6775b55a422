"""What a model answers to the questions of its facts, with and without an edit."""

from errata.evaluation.downstream import Downstream, Measure, Tasks, find_tasks
from errata.evaluation.evaluate import EvaluationOptions, EvaluationWords, evaluate
from errata.evaluation.generation import LENGTH, SENTENCE_END, continue_texts
from errata.evaluation.known import Known, known_facts
from errata.evaluation.perplexity import read_texts, text_perplexity
from errata.evaluation.probabilities import encode_at, log_probabilities, make_plan, measure
from errata.evaluation.questions import Edited, Key, Pair, sheets
from errata.evaluation.references import References, fit_references, load_references
from errata.evaluation.statements import likeliest_next, share_unchanged

__all__ = [
    "LENGTH",
    "SENTENCE_END",
    "Downstream",
    "Edited",
    "EvaluationOptions",
    "EvaluationWords",
    "Key",
    "Known",
    "Measure",
    "Pair",
    "References",
    "Tasks",
    "continue_texts",
    "encode_at",
    "evaluate",
    "find_tasks",
    "fit_references",
    "known_facts",
    "likeliest_next",
    "load_references",
    "log_probabilities",
    "make_plan",
    "measure",
    "read_texts",
    "share_unchanged",
    "sheets",
    "text_perplexity",
]
