"""The wordings of a file of facts, by relation, and the subject that stands in a plain question."""

from __future__ import annotations

from collections.abc import Iterable

from errata.facts import wording
from errata.facts.fact import Fact


def relation_of(fact: Fact) -> str:
    """The name of the fact's relation; where the file has none, its prompt."""
    return fact.prompt if fact.relation_id is None else fact.relation_id


def templates_by_relation(facts: Iterable[Fact]) -> dict[str, tuple[str, ...]]:
    """The prompts of each relation's facts, as templates, in the order of the file."""
    found: dict[str, dict[str, None]] = {}
    for fact in facts:
        found.setdefault(relation_of(fact), {})[fact.prompt] = None
    return {relation: tuple(templates) for relation, templates in found.items()}


def template_of(question: str, templates: Iterable[str]) -> tuple[str, str] | None:
    """The template that the question was made from, and the subject in it; None where none fits.

    Of several that fit it is the one that leaves the shortest subject: "The mother tongue of {} is" before "{} is".
    """
    found: tuple[str, str] | None = None
    for template in templates:
        subject = _subject(question, template)
        if subject is not None and (found is None or len(subject) < len(found[1])):
            found = (template, subject)
    return found


def _subject(question: str, template: str) -> str | None:
    """What stands in the question where the template has its `{}`."""
    before, _, after = template.partition(wording.SLOT)
    if not (question.startswith(before) and question.endswith(after)):
        return None
    subject = question[len(before) : len(question) - len(after)]
    return subject if subject and subject == subject.strip() and wording.SLOT not in subject else None
