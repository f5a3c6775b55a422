"""What may stand in a prompt, a subject and a target: the `{}`, the white space, and what is wrong with them.

Every function takes a value as it was found, notes what is wrong with it in `flaws`, and returns it settled.
So a constructor can raise the first flaw and a checker can list all of them, from the same code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

from errata.errors import AmbiguousSubject, EmptyTarget, FactError, SubjectNotInPrompt

SLOT = "{}"


@dataclass(frozen=True)
class Flaw:
    """One thing that is wrong with a fact, before it is known in which file and line."""

    field: str
    message: str
    error: type[FactError] = FactError

    def as_error(self, where: str) -> FactError:
        """The exception for it; `where` names the thing that has the field."""
        return self.error(f"{where}: {self.field}: {self.message}")


def fill(template: str, subject: str) -> str:
    """The template with the subject in place of its `{}`; other braces are left alone."""
    return template.replace(SLOT, subject, 1)


def span(template: str, subject: str) -> tuple[int, int]:
    """Where the subject begins and ends in the filled template, in characters."""
    start = template.index(SLOT)
    return (start, start + len(subject))


def settle(instance: object, values: Mapping[str, object], flaws: list[Flaw], where: str) -> None:
    """Raise the first flaw, or put the settled values where a frozen instance has the given ones."""
    if flaws:
        raise flaws[0].as_error(where)
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def text(value: object, field: str, flaws: list[Flaw]) -> str:
    """The value if it is text that can be written to a file; otherwise a flaw, and the empty text."""
    if not isinstance(value, str):
        flaws.append(Flaw(field, f"must be a text in quotes, and is {kind(value)}."))
        return ""
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        flaws.append(
            Flaw(field, f"holds half of a surrogate pair, which is no character: {short(value)}. Repair it.")
        )
        return ""
    return value


def filled_text(
    value: object, field: str, flaws: list[Flaw], what: str, error: type[FactError] = FactError
) -> str:
    """The value without white space around it; a flaw when nothing is left of it."""
    before = len(flaws)
    settled = text(value, field, flaws).strip()
    if not settled and len(flaws) == before:
        flaws.append(Flaw(field, f"is empty. Write {what}, or remove the record.", error))
    return settled


def target(value: object, field: str, flaws: list[Flaw]) -> str:
    """An answer, without white space around it: what joins it to a prompt is decided elsewhere (`joining`)."""
    return filled_text(value, field, flaws, "the answer that is expected", EmptyTarget)


def prompt(value: object, field: str, flaws: list[Flaw]) -> str:
    """A prompt as it is written: white space may be meant, as at the end of a chat's last line."""
    before = len(flaws)
    settled = text(value, field, flaws)
    if not settled.strip() and len(flaws) == before:
        flaws.append(Flaw(field, "is empty. Write the question, or take it out of the list."))
    return settled


def join(value: object, field: str, flaws: list[Flaw]) -> str | None:
    """What stands between a prompt and its target: white space or nothing; None leaves it to `join_of`."""
    if value is None:
        return None
    given = text(value, field, flaws)
    if given.strip():
        message = f'must be "", " " or other white space, and is {short(given)}. Write words into the prompt.'
        flaws.append(Flaw(field, message))
    return given


def subject(value: object, field: str, flaws: list[Flaw]) -> str:
    """A subject without white space around it; it may not hold the `{}` that stands for it."""
    settled = filled_text(value, field, flaws, "what the fact is about")
    if SLOT in settled:
        flaws.append(
            Flaw(field, f"holds {SLOT!r}, which stands for the subject in prompts: {short(settled)}.")
        )
    return settled


def template(value: object, subject: str, field: str, flaws: list[Flaw]) -> str:
    """A prompt with exactly one `{}`; if it has none, its one occurrence of the subject becomes one."""
    settled = prompt(value, field, flaws)
    slots = settled.count(SLOT)
    if slots == 1 or not settled or not subject:
        return settled
    if slots > 1:
        message = (
            f"has {slots} '{{}}': {short(settled)}. Keep the one that stands for the subject to be edited."
        )
        flaws.append(Flaw(field, message, AmbiguousSubject))
        return settled
    start = settled.find(subject)
    if start < 0:
        flaws.append(Flaw(field, _not_found(subject, settled), SubjectNotInPrompt))
        return settled
    if settled.find(subject, start + 1) >= 0:
        message = (
            f"Subject {short(subject)} occurs more than once in {short(settled)}, so it is not clear "
            "which one is meant. Write '{}' in place of the one to be edited."
        )
        flaws.append(Flaw(field, message, AmbiguousSubject))
    return settled[:start] + SLOT + settled[start + len(subject) :]


def items(value: object, field: str, flaws: list[Flaw]) -> Iterator[tuple[str, object]]:
    """The members of a list, each with its field's name, as in `paraphrase_prompts[0]`."""
    if not isinstance(value, list | tuple):
        flaws.append(Flaw(field, f"must be a list, and is {kind(value)}. Put it in square brackets."))
        return
    for index, item in enumerate(cast("Sequence[object]", value)):
        yield f"{field}[{index}]", item


def mapping(
    value: object, field: str, known: Sequence[str], flaws: list[Flaw]
) -> Mapping[str, object] | None:
    """The value if it is a JSON object with no key but the known ones, all of which it must have."""
    if not isinstance(value, Mapping):
        flaws.append(Flaw(field, f"must be an object with {', '.join(known)}, and is {kind(value)}."))
        return None
    row = cast("Mapping[str, object]", value)
    before = len(flaws)
    unknown(row, field, known, flaws)
    flaws.extend(Flaw(inside(field, name), "is missing.") for name in known if name not in row)
    return row if len(flaws) == before else None


def unknown(row: Mapping[str, object], field: str, known: Sequence[str], flaws: list[Flaw]) -> None:
    """A flaw for every key that is not known, with the known one that looks like it."""
    for name in row:
        if name not in known:
            close = get_close_matches(str(name), known, 1)
            advice = f"Did you mean {close[0]!r}?" if close else f"Known are: {', '.join(known)}."
            flaws.append(Flaw(inside(field, str(name)), f"is no field that Errata knows. {advice}"))


def inside(field: str, name: str) -> str:
    """The name of a field inside a field, as in `neighbors[0].subject`."""
    return f"{field}.{name}" if field else name


def short(value: str, limit: int = 90) -> str:
    """The text in quotes, cut in its middle when it is long."""
    if len(value) > limit:
        value = f"{value[: limit // 2]} ... {value[-limit // 2 :]}"
    return repr(value)


def kind(value: object) -> str:
    """What a value is, in the words of JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list | tuple) else "an object"


def _not_found(subject: str, prompt: str) -> str:
    message = f"Subject {short(subject)} does not occur in {short(prompt)}. "
    if unicodedata.normalize("NFC", subject) in unicodedata.normalize("NFC", prompt):
        message += "They differ only in how accents are stored (Unicode composed and decomposed). "
    elif subject.casefold() in prompt.casefold():
        message += "It occurs with other capital letters. "
    return message + "Write '{}' where the subject goes."
