"""The registry of metrics: each has a name, a definition, what it needs, where it comes from, and one function.

A metric gives each record a number, or None where the record cannot tell. METHODS.md and docs/evaluation.md explain
each. `errata.scores` makes means and intervals of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from errata.results.outcomes import NO_TOKEN, Phase, Question, Record
from errata.results.written import PlainText, Writing

RecordMetric = Callable[[Record, Phase], "float | None"]
TextMetric = Callable[[PlainText], float]
Block = Literal["classic", "trustworthy"]
Unit = Literal["share", "bits", "perplexity"]
"""A share is shown in percent (a cosine too)."""

MEMIT = "Meng et al. 2023 (MEMIT), section 5"
ROME = "Meng et al. 2022 (ROME), section 3.2"
PAPER_2 = "paper 2 (iterative and neighbor-assisted editing)"
ZSRE = "Meng et al. 2022 (ROME), evaluation of zsRE"
ERRATA = "Errata"


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


_GROUPS = {
    "efficacy": ("Efficacy", "the prompt", "target_new"),
    "generalization": ("Generalization", "the paraphrases", "paraphrase_prompts, target_new"),
    "specificity": ("Specificity", "the neighborhood prompts", "neighborhood_prompts, their true answers"),
}


def _group_metrics() -> list[Metric]:
    """Success, accuracy and token accuracy of the three groups, each with its harmonic mean."""
    metrics: list[Metric] = []
    for group, (word, asked, needs) in _GROUPS.items():
        wanted = "P(true) > P(target_new)" if group == "specificity" else "P(target_new) > P(target_true)"
        said = f"Share of {asked} with {wanted}, P the mean log-probability of the answer's tokens."
        also = needs if group == "specificity" else f"{needs}, target_true"
        made = Metric(f"{group}_success", f"{word}, success", said, also, MEMIT, of_record=success(group))
        metrics.append(made)
    metrics.append(_harmonic("success", MEMIT))
    for group, (word, asked, needs) in _GROUPS.items():
        said = f"Share of {asked} where every token of the answer is the likeliest one, teacher-forced."
        made = Metric(
            f"{group}_accuracy", f"{word}, accuracy", said, needs, PAPER_2, of_record=accuracy(group)
        )
        metrics.append(made)
    metrics.append(_harmonic("accuracy", PAPER_2))
    metrics.append(_UNCHANGED)
    for group, (word, asked, needs) in _GROUPS.items():
        name, label = f"{group}_token_accuracy", f"{word}, token accuracy"
        said = f"Share of the answer's tokens that are the likeliest ones after {asked}, teacher-forced."
        metrics.append(Metric(name, label, said, needs, ZSRE, of_record=token_accuracy(group)))
    metrics.append(_harmonic("token_accuracy", ZSRE))
    return metrics


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
_TRUSTWORTHY = [
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
    Metric(
        "prefixed_accuracy",
        "Behind 50 unrelated tokens, accuracy",
        "1 if every token of target_new is the likeliest one, teacher-forced, with the prompt behind an unrelated "
        "prefix of 50 tokens.",
        "room for 50 more tokens",
        ERRATA,
        "trustworthy",
        of_record=accuracy("prefixed"),
    ),
    Metric(
        "same_subject_accuracy",
        "Same subject, accuracy",
        "Share of other facts of the subject where every token of the true answer is the likeliest one.",
        "same_subject_prompts",
        "METHODS",
        "trustworthy",
        of_record=accuracy("same_subject"),
    ),
    Metric(
        "unrelated_accuracy",
        "Unrelated facts, accuracy",
        "Share of facts of untouched subjects where every token of the true answer is the likeliest one.",
        "unrelated_prompts",
        "METHODS",
        "trustworthy",
        of_record=accuracy("unrelated"),
    ),
    Metric(
        "reversed_accuracy",
        "Reversed question, accuracy",
        "Share of questions from the new object's side where every token of the answer (the subject) is the likeliest.",
        "reversed_prompts",
        "Berglund et al. 2024 (The Reversal Curse)",
        "trustworthy",
        of_record=accuracy("reversed"),
    ),
    Metric(
        "two_hop_accuracy",
        "Two-hop question, accuracy",
        "Share of questions that need the new fact and a second one where every token of the answer is the likeliest.",
        "two_hop_prompts",
        "Zhong et al. 2023 (MQuAKE)",
        "trustworthy",
        of_record=accuracy("two_hop"),
    ),
]

REGISTRY: dict[str, Metric] = {metric.name: metric for metric in (*_group_metrics(), *_TEXTS, *_TRUSTWORTHY)}
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
