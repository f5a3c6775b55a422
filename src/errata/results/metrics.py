"""The registry of metrics: each has a name, a definition, what it needs, where it comes from, and one function.

A metric gives each record a number, or None where the record cannot tell. METHODS.md and docs/evaluation.md explain
each. `errata.scores` makes means and intervals of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from errata.results.groups import GROUPS, MEMIT, Block, QuestionGroup, classic_groups
from errata.results.outcomes import NO_TOKEN, Phase, Question, Record
from errata.results.written import PlainText, Writing

RecordMetric = Callable[[Record, Phase], "float | None"]
TextMetric = Callable[[PlainText], float]
Unit = Literal["share", "bits", "perplexity"]
"""A share is shown in percent (a cosine too)."""

ROME = "Meng et al. 2022 (ROME), section 3.2"
PAPER_2 = "paper 2 (iterative and neighbor-assisted editing)"
ZSRE = "Meng et al. 2022 (ROME), evaluation of zsRE"


@dataclass(frozen=True)
class Metric:
    """One metric. It is of records, or of plain texts, or the harmonic mean of three others."""

    name: str
    label: str
    definition: str
    needs: str
    source: str
    block: Block = "classic"
    unit: Unit = "share"
    of_record: RecordMetric | None = None
    of_text: TextMetric | None = None
    harmonic: tuple[str, str, str] | None = None


def success(group: str) -> RecordMetric:
    """The share of a group's questions with P(wanted) > P(rival): METHODS "Evaluation", MEMIT section 5.2."""

    def metric(record: Record, phase: Phase) -> float | None:
        return _share(question.success for question in _questions(record, phase, group))

    return metric


def accuracy(group: str) -> RecordMetric:
    """The share of a group's questions of whose wanted answer every token is the likeliest, teacher-forced."""

    def metric(record: Record, phase: Phase) -> float | None:
        return _share(question.wanted.correct for question in _questions(record, phase, group))

    return metric


def token_accuracy(group: str) -> RecordMetric:
    """The share of the wanted answers' tokens that are the likeliest, teacher-forced: per question, then their mean."""

    def metric(record: Record, phase: Phase) -> float | None:
        hits = [question.wanted.hits for question in _questions(record, phase, group)]
        return _mean([sum(each) / len(each) for each in hits])

    return metric


def unchanged(group: str) -> RecordMetric:
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
    """1 where the model, writing freely after the prompt, writes exactly the target in as many tokens."""
    outcomes = record.phase(phase)
    if outcomes is None or outcomes.continuation is None:
        return None
    return float(outcomes.continuation.exact)


def whole_answer(record: Record, phase: Phase) -> float | None:
    """1 where the model, writing freely after the prompt, writes exactly the target and then comes to an end."""
    outcomes = record.phase(phase)
    if outcomes is None or outcomes.continuation is None or outcomes.continuation.complete is None:
        return None
    return float(outcomes.continuation.complete)


def fluency(record: Record, phase: Phase) -> float | None:
    """The mean over the record's generated texts of their weighted n-gram entropy, in bits."""
    writing = _writing(record, phase)
    return None if writing is None else writing.fluency


def consistency(record: Record, phase: Phase) -> float | None:
    """The cosine between the TF-IDF vectors of the record's generated texts and of its reference texts."""
    writing = _writing(record, phase)
    return None if writing is None else writing.consistency


def metrics_of(group: QuestionGroup) -> dict[str, Metric]:
    """The metrics that a group of questions gets, by kind."""
    name, needs = group.name, group.needs or group.field
    if group.block == "trustworthy":
        found = Metric(
            f"{name}_accuracy",
            f"{group.label}, accuracy",
            group.definition,
            needs,
            group.source,
            "trustworthy",
            of_record=accuracy(name),
        )
        return {"accuracy": found}
    return _classic_metrics_of(group, needs)


def _classic_metrics_of(group: QuestionGroup, needs: str) -> dict[str, Metric]:
    name = group.name
    wanted = "P(true) > P(target_new)" if group.stays else "P(target_new) > P(target_true)"
    return {
        "success": Metric(
            f"{name}_success",
            f"{group.label}, success",
            f"Share of {group.asked} with {wanted}, P the mean log-probability of the answer's tokens.",
            needs if group.stays else f"{needs}, target_true",
            MEMIT,
            of_record=success(name),
        ),
        "accuracy": Metric(
            f"{name}_accuracy",
            f"{group.label}, accuracy",
            f"Share of {group.asked} where every token of the answer is the likeliest one, teacher-forced.",
            needs,
            PAPER_2,
            of_record=accuracy(name),
        ),
        "token_accuracy": Metric(
            f"{name}_token_accuracy",
            f"{group.label}, token accuracy",
            f"Share of the answer's tokens that are the likeliest ones after {group.asked}, teacher-forced.",
            needs,
            ZSRE,
            of_record=token_accuracy(name),
        ),
    }


def _classic_metrics() -> list[Metric]:
    """Success, accuracy and token accuracy of the classic groups, each with its harmonic mean."""
    by_group = [metrics_of(group) for group in classic_groups()]
    return [
        *(metrics["success"] for metrics in by_group),
        _harmonic("success", MEMIT),
        *(metrics["accuracy"] for metrics in by_group),
        _harmonic("accuracy", PAPER_2),
        _UNCHANGED,
        *(metrics["token_accuracy"] for metrics in by_group),
        _harmonic("token_accuracy", ZSRE),
    ]


def _trustworthy_metrics() -> list[Metric]:
    groups = [group for group in GROUPS.values() if group.block == "trustworthy"]
    in_order = sorted(groups, key=lambda group: group.order)
    return [*_FREE_ANSWERS, *(metrics_of(group)["accuracy"] for group in in_order)]


def _harmonic(kind: str, source: str) -> Metric:
    parts = (f"efficacy_{kind}", f"generalization_{kind}", f"specificity_{kind}")
    words = kind.replace("_", " ")
    definition = f"Harmonic mean of the {words} of efficacy, generalization and specificity."
    return Metric(
        f"score_{kind}", f"Score, {words}", definition, "what its three parts need", source, harmonic=parts
    )


_UNCHANGED = Metric(
    "specificity_unchanged",
    "Specificity, answer unchanged",
    "Share of the neighborhood prompts with the same likeliest tokens as before the edit.",
    "neighborhood_prompts, an edit",
    f"{PAPER_2}, appendix B.2",
    of_record=unchanged("specificity"),
)
_TEXTS = [
    Metric(
        "fluency",
        "Fluency (n-gram entropy, bits)",
        "Mean over the generated texts of (2/3 H_2 + 4/3 H_3) / 2, H_n the entropy of the n-grams of words in bits; "
        "100 tokens, top-k 5. Published tables show it times 100.",
        "generation_prompts, --fluency",
        f"{ROME}; Zhang et al. 2018",
        unit="bits",
        of_record=fluency,
    ),
    Metric(
        "consistency",
        "Consistency (TF-IDF cosine, %)",
        "Cosine of the TF-IDF vectors of the generated texts and of reference texts about subjects with target_new.",
        "generation_prompts, --fluency, reference texts (reference_texts or --references)",
        ROME,
        of_record=consistency,
    ),
    Metric(
        "me_ppl_50",
        "Perplexity of plain texts (ME-PPL)",
        "Mean over plain texts of exp(-(1/N) sum log P), N the number of the text's tokens.",
        "--perplexity FILE (ME-PPL-50's 50 sentences)",
        "Yang et al. 2024, as published with paper 2",
        unit="perplexity",
        of_text=lambda text: text.perplexity,
    ),
    Metric(
        "me_ppl_50_textbook",
        "Perplexity of plain texts (textbook)",
        "The same with N - 1, the number of tokens that are predicted.",
        "--perplexity FILE",
        "METHODS",
        unit="perplexity",
        of_text=lambda text: text.textbook_perplexity,
    ),
]
_FREE_ANSWERS = [
    Metric(
        "generation_accuracy",
        "Generation, accuracy",
        "1 if the model, writing greedily and fed no token of the target, writes exactly the target in as many tokens.",
        "target_new",
        "METHODS",
        "trustworthy",
        of_record=generation,
    ),
    Metric(
        "whole_answer_accuracy",
        "Generation to its end, accuracy",
        "1 if what the model writes greedily, up to the end of its sentence, line or text, is exactly the target.",
        "target_new",
        "Yang et al. 2025 (The Mirage of Model Editing)",
        "trustworthy",
        of_record=whole_answer,
    ),
]

REGISTRY: dict[str, Metric] = {
    metric.name: metric for metric in (*_classic_metrics(), *_TEXTS, *_trustworthy_metrics())
}
"""Every metric by name, in the order in which scores are reported."""


def _questions(record: Record, phase: Phase, group: str) -> tuple[Question, ...]:
    outcomes = record.phase(phase)
    return () if outcomes is None else outcomes.group(group)


def _writing(record: Record, phase: Phase) -> Writing | None:
    outcomes = record.phase(phase)
    return None if outcomes is None else outcomes.writing


def _share(verdicts: Iterable[bool | None]) -> float | None:
    """The share of the verdicts that are true, of those that were given."""
    return _mean([float(verdict) for verdict in verdicts if verdict is not None])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _same_answer(one: Question, other: Question) -> bool:
    """Whether the likeliest tokens are the same ones; what is not a number is the same as nothing."""
    return one.wanted.predicted == other.wanted.predicted and NO_TOKEN not in other.wanted.predicted
