"""Files of facts: read, checked with every problem's line, and written. `docs/facts.md` describes them."""

from __future__ import annotations

import gzip
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Literal, cast

from errata.errors import FactError
from errata.facts import wording
from errata.facts.contradictions import contradictions
from errata.facts.fact import FIELDS, Fact, fact_of_row
from errata.facts.records import KINDS, Record, Row, published_row, read_records
from errata.facts.wording import Flaw
from errata.runtime import atomic_file, to_json


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file of facts; `line` is None for what concerns the whole file.

    A "warning" may be meant. `error` is what `read_facts` raises for a record that cannot be used.
    """

    line: int | None
    field: str
    message: str
    severity: Literal["error", "warning"] = "error"
    case_id: int | str | None = None
    error: type[FactError] = dataclass_field(default=FactError, repr=False)

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}, "
        case = "" if self.case_id is None else f" (case_id {self.case_id})"
        return f"{where}{self.field}{case}: {self.message}"


def read_facts(path: str | os.PathLike[str], skip_invalid: bool = False) -> list[Fact]:
    """The facts of a file: Errata's own JSONL, CounterFact, its neighbor-assisted subsets or zsRE, as published.

    Records that can be used and are doubtful (warnings, duplicates, contradictions) are logged. So are, with
    `skip_invalid`, the records that cannot be used, which are then left out.

    Raises:
        FactError: the file cannot be read, or holds no fact, or (without `skip_invalid`) holds a record that
            cannot be used; the message shows the first few of those.
    """
    entries, broken, doubtful = _examine_file(path)
    if broken and not (skip_invalid and entries):
        raise broken[0].error(_report(path, broken))
    problems = sorted(broken + doubtful, key=_position)
    for problem in problems[:_SHOWN]:
        _log.warning("%s: %s", path, problem)
    if len(problems) > _SHOWN:
        _log.warning("%s: %d more problems; `errata facts check` lists them", path, len(problems) - _SHOWN)
    return [fact for _, fact in entries]


def check_facts(path: str | os.PathLike[str]) -> list[Problem]:
    """Everything that is wrong in a file of facts, in the order of its lines; an empty list when nothing is."""
    _, broken, doubtful = _examine_file(path)
    return sorted(broken + doubtful, key=_position)


def write_facts(path: str | os.PathLike[str], facts: Iterable[Fact]) -> None:
    """Write Errata's own JSONL, all or nothing; gzipped when the path ends in `.gz`."""
    text = "".join(json.dumps(to_json(fact), ensure_ascii=False) + "\n" for fact in facts)
    data = text.encode("utf-8")
    with atomic_file(path) as aside:
        # Without a time stamp the same facts give the same bytes.
        aside.write_bytes(gzip.compress(data, mtime=0) if os.fspath(path).endswith(".gz") else data)


_log = logging.getLogger(__name__)
_SHOWN = 5
_Entries = list[tuple[int, Fact]]


def _examine_file(path: str | os.PathLike[str]) -> tuple[_Entries, list[Problem], list[Problem]]:
    """The facts with their lines, the problems that make a record or the file useless, and all others."""
    entries: _Entries = []
    broken: list[Problem] = []
    doubtful: list[Problem] = []
    found = False
    for index, record in enumerate(read_records(path)):
        found = True
        flaws: list[Flaw] = []
        fact, case_id = _examine_record(record, index, flaws)
        broken.extend(
            Problem(record.line, flaw.field, flaw.message, "error", case_id, flaw.error) for flaw in flaws
        )
        if fact is not None and record.line is not None:
            entries.append((record.line, fact))
            doubtful.extend(_doubts(record.line, fact))
    if not found:
        broken.append(Problem(None, "file", "holds no record: its list is empty."))
    return entries, broken, doubtful + _conflicts(entries)


def _examine_record(record: Record, index: int, flaws: list[Flaw]) -> tuple[Fact | None, int | str | None]:
    """The fact of a record and its case_id, in the names of the record's own kind."""
    if record.error is not None:
        flaws.append(Flaw("file" if record.line is None else "record", record.error))
        return None, None
    if not isinstance(record.value, Mapping):
        flaws.append(Flaw("record", f"must be a JSON object, and is {wording.kind(record.value)}."))
        return None, None
    values = cast("Mapping[str, object]", record.value)
    row = published_row(values, index)
    if row is None and not any(name in values for name in FIELDS):
        flaws.append(Flaw("record", _unknown_kind(values)))
        return None, None
    own: list[Flaw] = []
    if row is None:
        row = Row(values)
        wording.unknown(values, "", FIELDS, own)
    fact = fact_of_row(row.values, own)
    flaws.extend(replace(flaw, field=row.published_name(flaw.field)) for flaw in own)
    case_id = row.values.get("case_id")
    return fact, case_id if isinstance(case_id, int | str) else None


def _unknown_kind(values: Mapping[str, object]) -> str:
    keys = ", ".join(list(values)[:8]) or "none at all"
    return f"is of no kind that Errata reads. Its fields: {keys}. Known kinds: {'; '.join(KINDS)}."


def _doubts(line: int, fact: Fact) -> Iterator[Problem]:
    """What may be meant, and probably is not."""

    def doubt(field: str, message: str) -> Problem:
        return Problem(line, field, message, "warning", fact.case_id)

    if fact.target_new == fact.target_true:
        same = f"is the true answer already, {wording.short(fact.target_new)}: nothing new is written."
        yield doubt("target_new", same)
    if fact.target_true is None and any(isinstance(item, str) for item in fact.neighborhood_prompts):
        yield doubt(
            "neighborhood_prompts",
            "holds plain texts, which expect target_true, and there is none: they are not scored. "
            'Add target_true, or write them as {"prompt", "target"}.',
        )
    foreign = {
        "neighborhood_prompts": [
            item if isinstance(item, str) else item.prompt for item in fact.neighborhood_prompts
        ],
        "unrelated_prompts": [probe.prompt for probe in fact.unrelated_prompts],
        "attribute_prompts": list(fact.attribute_prompts),
    }
    for name, prompts in foreign.items():
        for index, prompt in enumerate(prompts):
            if wording.SLOT in prompt:
                message = f"holds '{{}}', which nothing fills in here: {wording.short(prompt)}."
                yield doubt(f"{name}[{index}]", f"{message} Write the question out.")


def _conflicts(entries: _Entries) -> list[Problem]:
    """Facts that ask what an earlier one asks: with its target a duplicate, with another one a contradiction."""
    sources = [f"line {line}" for line, _ in entries]
    found = contradictions([fact for _, fact in entries], sources=sources)
    against = {conflict.source: conflict for conflict in found}
    first: dict[tuple[str, str], int] = {}
    problems: list[Problem] = []
    for line, fact in entries:
        earlier = first.setdefault((fact.subject, fact.prompt.rstrip()), line)
        conflict = against.get(f"line {line}")
        if conflict is not None:
            message = f"contradicts {conflict.earlier_source}: {conflict}. Keep one of them."
            problems.append(Problem(line, "target_new", message, "error", fact.case_id))
        elif earlier != line:
            message = (
                f"is a duplicate of line {earlier}: the same subject, prompt and target. Remove one of them."
            )
            problems.append(Problem(line, "record", message, "error", fact.case_id))
    return problems


def _position(problem: Problem) -> int:
    return problem.line or 0


def _report(path: str | os.PathLike[str], problems: list[Problem]) -> str:
    """The first few problems of a file, and how to see all of them."""
    name = os.fspath(path)
    if problems[0].line is None:
        return f"Facts cannot be read from {name}: the file {problems[0].message}"
    shown = [f"  {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  ... and {len(problems) - _SHOWN} more")
    lines = [f"{name} has records that cannot be used:", *shown, f"`errata facts check {name}` lists all."]
    return "\n".join(lines)
