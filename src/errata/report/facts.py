"""Each fact before and after an edit as plain data, for the page: prompts, answers, and their tokens' probabilities."""

import math
from collections.abc import Mapping, Sequence

from errata.results import GROUPS, Outcomes, Question, Record, Results

MOST_FACTS = 2000
"""In one page, over all of its lines: failures first, so what is left out did not fail."""
Row = dict[str, object]


def fact_rows(results: Results, texts: Mapping[str, str], most: int = MOST_FACTS) -> list[Row]:
    """The records of an evaluation, those with most failures first; `texts` has the text of a token by its number."""
    order = sorted(range(len(results.records)), key=lambda index: (-badness(results.records[index]), index))
    return [_row(results.records[index], index + 1, texts) for index in order[:most]]


def badness(record: Record) -> float:
    """How much failed: the fact itself weighs more than all paraphrases, and they more than what is around it."""
    after = record.after
    return 100 * _failed(after.efficacy) + 10 * _failed(after.generalization) + _failed(after.specificity)


def _failed(questions: Sequence[Question]) -> float:
    """The share of the questions whose answer is not the likeliest, or less likely than its rival."""
    if not questions:
        return 0.0
    return sum(not _holds(question) for question in questions) / len(questions)


def _holds(question: Question) -> bool:
    return question.wanted.correct and question.success is not False


def _row(record: Record, number: int, texts: Mapping[str, str]) -> Row:
    before, after = record.before, record.after
    said = after.continuation
    return {
        "number": record.case_id if record.case_id is not None else number,
        "subject": record.subject,
        "prompt": record.prompt,
        "new": record.target_new,
        "true": record.target_true or "",
        "bad": round(badness(record), 3),
        "said": said.text.strip() if said is not None else "",
        "groups": [
            [
                group,
                [_question(before, group, place, one, texts) for place, one in enumerate(after.group(group))],
            ]
            for group in GROUPS
            if after.group(group)
        ],
    }


def _question(
    before: Outcomes | None, group: str, place: int, after: Question, texts: Mapping[str, str]
) -> Row:
    """One question: what was wanted, how likely each of its tokens was, and what the model preferred."""
    earlier = before.group(group)[place] if before is not None else None
    return {
        "prompt": after.prompt,
        "wanted": after.wanted.text,
        "rival": after.rival.text if after.rival is not None else "",
        "tokens": [texts.get(str(token), "") for token in after.wanted.tokens],
        "before": None if earlier is None else _side(earlier),
        "after": _side(after),
    }


def _side(question: Question) -> Row:
    return {
        "each": [_probability(value) for value in question.wanted.log_probabilities],
        "p": _probability(question.wanted.log_probability),
        "rival": None if question.rival is None else _probability(question.rival.log_probability),
        "says": question.wanted.predicted_text,
        "correct": question.wanted.correct,
        "success": question.success,
    }


def _probability(log_probability: float) -> float | None:
    """Rounded; None for what is not a number."""
    return None if math.isnan(log_probability) else round(math.exp(min(0.0, log_probability)), 5)
