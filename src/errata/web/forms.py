"""What a person types or uploads, made into facts; what is wrong is told field by field, in a person's words."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from errata.errors import FactError
from errata.facts import Fact, Probe, check_facts, fact_from_json, read_facts
from errata.runtime import to_json

LONGEST = 2_000
"""Characters of one line that is typed."""
LONGEST_LIST = 20_000
"""Characters of a list of questions."""
MOST_QUESTIONS = 20
"""In a list that is typed."""
LARGEST_FILE = 20_000_000
"""Bytes of a file of facts."""
MOST_FACTS = 1_000
"""Facts that wait to be written."""
SHOWN = 5
"""Problems of a file."""

BRACES = re.compile(r"\{([^{}]*)\}")
ARROW = "=>"

FIELDS = ("prompt", "subject", "target_new", "target_true", "paraphrases", "neighbors")
"""Of the form, each of which has a place for its error."""


class FormError(Exception):
    """What was typed cannot be used; `fields` says why, field by field."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in fields.items()))
        self.fields = dict(fields)


@dataclass(frozen=True)
class Draft:
    """A fact that waits to be written, and what the model is to be asked first to complete it."""

    fact: Fact
    keep: tuple[str, ...] = ()
    """Questions whose answer shall stay whatever it is now."""
    complete: bool = False
    """Whether the old answer is taken from the model where none was typed."""

    @property
    def asks(self) -> tuple[str, ...]:
        """The questions that the unedited model has to answer: those to keep, and the fact's own for its old answer."""
        own = (self.fact.question,) if self.complete and self.fact.target_true is None else ()
        return (*self.keep, *own)

    def completed(self, answers: Mapping[str, str]) -> Fact:
        """The fact with what the model answers now; a question to which it says nothing is left out."""
        kept = [Probe(question, answers[question]) for question in self.keep if answers.get(question)]
        fact = replace_neighborhood(self.fact, (*self.fact.neighborhood_prompts, *kept))
        said = answers.get(fact.question, "") if self.complete and fact.target_true is None else ""
        if not said or said.casefold() == fact.target_new.casefold():
            return fact
        return fact_from_json({**to_json(fact), "target_true": said})


def replace_neighborhood(fact: Fact, prompts: tuple[str | Probe, ...]) -> Fact:
    """The fact with these neighborhood prompts."""
    return fact_from_json({**to_json(fact), "neighborhood_prompts": to_json(prompts)})


def draft_of(typed: Mapping[str, str]) -> Draft:
    """The fact of the form's fields (`FIELDS`; what is missing is empty).

    The subject stands in the question in braces, `{France}`, or in a field of its own.

    Raises:
        FormError: naming the fields that cannot be used.
    """
    given = {name: typed.get(name, "") or "" for name in FIELDS}
    errors = _too_long(given)
    if errors:
        raise FormError(errors)
    given = {name: text.strip() for name, text in given.items()}
    prompt, subject = _subject(given, errors)
    if not given["target_new"]:
        errors["target_new"] = "Write the new answer: what the model should say instead."
    paraphrases = _lines(given["paraphrases"], "paraphrases", errors)
    answered, keep = _neighbors(given["neighbors"], errors)
    if errors:
        raise FormError(errors)
    try:
        fact = Fact(
            prompt,
            subject,
            given["target_new"],
            given["target_true"] or None,
            paraphrase_prompts=[_filled(text, subject) for text in paraphrases],
            neighborhood_prompts=answered,
        )
    except FactError as error:
        raise FormError({"prompt": str(error)}) from error
    if fact.target_true == fact.target_new:
        raise FormError(
            {"target_true": "The old and the new answer are the same: there is nothing to change."}
        )
    return Draft(fact, keep, complete=True)


def is_empty(typed: Mapping[str, str]) -> bool:
    """Whether nothing was typed into the form."""
    return not any((typed.get(name) or "").strip() for name in FIELDS)


def question_of(text: str) -> str:
    """A question that the person asks, as the model is to read it: braces around a subject are taken away.

    Raises:
        FormError: it is empty or too long.
    """
    errors = _too_long({"question": text})
    if not text.strip() and not errors:
        errors["question"] = "Write the beginning of a sentence, such as: The capital of France is"
    if errors:
        raise FormError(errors)
    return BRACES.sub(r"\1", text).rstrip()


def facts_of_file(path: str | os.PathLike[str], name: str) -> list[Draft]:
    """The facts of a file that was uploaded under that name.

    Raises:
        FormError: it cannot be read; the message shows the first problems with their lines.
    """
    size = Path(path).stat().st_size
    if size > LARGEST_FILE:
        raise FormError(
            {"file": f"The file has {size / 1e6:,.0f} MB; at most {LARGEST_FILE // 10**6} MB are read here."}
        )
    errors = [problem for problem in check_facts(path) if problem.severity == "error"]
    if errors:
        more = [f"... and {len(errors) - SHOWN} more"] if len(errors) > SHOWN else []
        told = "\n".join([*(str(problem) for problem in errors[:SHOWN]), *more])
        raise FormError({"file": f"{name} cannot be used:\n{told}"})
    facts = read_facts(path)
    if len(facts) > MOST_FACTS:
        raise FormError(
            {
                "file": f"{name} holds {len(facts):,} facts; at most {MOST_FACTS:,} are edited here. Use `errata edit`."
            }
        )
    return [Draft(fact) for fact in facts]


def _too_long(given: Mapping[str, str]) -> dict[str, str]:
    limits = {"paraphrases": LONGEST_LIST, "neighbors": LONGEST_LIST}
    return {
        name: f"This is too long: {len(text):,} characters, and at most {limits.get(name, LONGEST):,} are taken."
        for name, text in given.items()
        if len(text) > limits.get(name, LONGEST)
    }


def _subject(given: Mapping[str, str], errors: dict[str, str]) -> tuple[str, str]:
    """The prompt with `{}` in place of its subject, and the subject."""
    prompt, subject = given["prompt"], given["subject"]
    if not prompt:
        errors["prompt"] = (
            "Write the beginning of a sentence, with its subject in braces: The capital of {France} is"
        )
        return prompt, subject
    found = BRACES.findall(prompt)
    if len(found) > 1:
        errors["prompt"] = "There are several pairs of braces. Put braces around the one subject only."
    elif found and found[0].strip():
        if subject and subject != found[0].strip():
            errors["subject"] = (
                f"The braces say {found[0].strip()!r}, and this field says {subject!r}. Empty this field, or take the "
                "braces away."
            )
        return BRACES.sub("{}", prompt), found[0].strip()
    elif not subject:
        errors["subject" if found else "prompt"] = (
            "Which word is the subject? Put braces around it, as in: The capital of {France} is"
        )
    elif not found and subject not in prompt:
        errors["subject"] = (
            f"The question does not contain {subject!r}. Write the subject as it stands there."
        )
    elif not found and prompt.count(subject) > 1:
        errors["subject"] = (
            f"The question has {subject!r} more than once. Put braces around the one that is meant."
        )
    return prompt, subject


def _lines(text: str, name: str, errors: dict[str, str]) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    longest = max(map(len, lines), default=0)
    if len(lines) > MOST_QUESTIONS:
        errors[name] = f"There are {len(lines)} questions, and at most {MOST_QUESTIONS} are taken."
    elif longest > LONGEST:
        errors[name] = f"A line has {longest:,} characters, and at most {LONGEST:,} are taken."
    return lines


def _neighbors(text: str, errors: dict[str, str]) -> tuple[list[Probe], tuple[str, ...]]:
    """Questions with their answers, and those without one."""
    answered: list[Probe] = []
    keep: list[str] = []
    for line in _lines(text, "neighbors", errors):
        question, arrow, answer = (part.strip() for part in line.partition(ARROW))
        if not question or (arrow and not answer):
            errors["neighbors"] = (
                f"A line lacks its question or answer: {line[:60]!r}. Write: question {ARROW} answer"
            )
        elif arrow:
            answered.append(Probe(_filled(question), answer))
        else:
            keep.append(_filled(question))
    return answered, tuple(keep)


def _filled(text: str, subject: str | None = None) -> str:
    """The question without braces; empty ones stand for the subject."""
    return BRACES.sub(lambda match: match[1] or subject or match[0], text)
