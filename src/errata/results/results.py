"""Results: the raw outcomes of an evaluation, kept in one file; scores are computed from them, never stored alone.

The file is JSONL. Its first line says what was evaluated and how; each line after it is one fact with the outcomes of
both phases. `docs/evaluation.md` lists every field. The version in the first line is `SCHEMA`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, TypeVar, cast

from errata.errors import ResultsError
from errata.results.outcomes import Phase, Record
from errata.results.scores import LABELS, Score, score_records
from errata.results.written import PlainText
from errata.runtime import atomic_file, atomic_folder, from_json, refuse_existing, to_json

SCHEMA = 2
"""The version of the file's form; one that is higher comes from a later Errata."""
READABLE = (1, SCHEMA)
"""A file of version 1 lacks what came later: it is read as not measured."""
FILE = "results.jsonl"
SCORES_FILE = "scores.json"
KIND = "errata results"
Row = TypeVar("Row")


@dataclass(frozen=True)
class TableRow:
    """One line of a table of scores; None where the score was not measured in that phase."""

    name: str
    label: str
    before: Score | None
    after: Score | None


@dataclass(frozen=True)
class _Header:
    """The first line of a file of results."""

    schema: int
    kind: str
    records: int
    model: str
    revision: str | None
    edit: Mapping[str, object] | None
    settings: Mapping[str, object] | None
    texts: Mapping[Phase, tuple[PlainText, ...]] | None


@dataclass(frozen=True)
class Results:
    """What an evaluation measured, fact by fact."""

    records: tuple[Record, ...]
    model: str
    revision: str | None = None
    edit: Mapping[str, object] | None = None
    """What tells the edit from others (method, preset, seed, how many facts, when made); None without an edit."""
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    """What it takes to measure the same again."""
    texts: Mapping[Phase, tuple[PlainText, ...]] = field(default_factory=dict[Phase, tuple[PlainText, ...]])
    """How the model took to plain texts, in each phase in which it was asked to read some."""

    @property
    def has_before(self) -> bool:
        """Whether the model was measured without the edit too."""
        return any(record.before is not None for record in self.records)

    @property
    def broken(self) -> tuple[Record, ...]:
        """The records with an output, after the edit, that was not a number; they count as failures."""
        return tuple(record for record in self.records if any(q.broken for q in record.after.questions))

    def scores(self, phase: Phase = "after") -> dict[str, Score | None]:
        """Every score of a phase by name, in the order of a report; None where it was not measured."""
        return score_records(self.records, phase, self.texts.get(phase, ()))

    def table(self) -> list[TableRow]:
        """The scores that were measured, before and after, as rows to print."""
        before, after = self.scores("before"), self.scores("after")
        return [
            TableRow(name, label, before[name], after[name])
            for name, label in LABELS.items()
            if before[name] is not None or after[name] is not None
        ]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a new file (`path` ends in .jsonl) or a new folder with the file and its scores; returns the file.

        Raises:
            OutputExists: something is there already.
        """
        target = Path(path)
        refuse_existing(target)
        if target.suffix == ".jsonl":
            with atomic_file(target) as aside:
                self._write(aside)
            return target
        with atomic_folder(target) as folder:
            self._write(folder / FILE)
            scores = json.dumps(self._scores_json(), indent=1, ensure_ascii=False)
            (folder / SCORES_FILE).write_text(scores + "\n", encoding="utf-8")
        return target / FILE

    def _write(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="\n") as lines:
            for row in map(to_json, (self._header, *self.records)):
                lines.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")

    @property
    def _header(self) -> _Header:
        edit, settings, texts = self.edit, self.settings, self.texts
        return _Header(SCHEMA, KIND, len(self.records), self.model, self.revision, edit, settings, texts)

    def _scores_json(self) -> dict[str, object]:
        phases: tuple[Phase, ...] = ("before", "after") if self.has_before else ("after",)
        scores: dict[str, object] = {phase: to_json(self.scores(phase)) for phase in phases}
        return {"computed_from": FILE, "records": len(self.records), **scores}


def load_results(path: str | os.PathLike[str]) -> Results:
    """Read what `Results.save` wrote: the file, or the folder that holds it.

    Raises:
        ResultsError: it is not there, not a file of results, cut off, damaged, or of a later version.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE
    try:
        with file.open(encoding="utf-8") as lines:
            rows = _rows(file, lines)
            header = _check_header(file, next(rows, None))
            records = tuple(_row(Record, file, number, row) for number, row in enumerate(rows, start=2))
    except FileNotFoundError:
        raise ResultsError(f"There is no file of results {file}. `Results.save` writes one.") from None
    except UnicodeDecodeError as error:
        raise ResultsError(f"{file} is not text in UTF-8 ({error}), so it is no file of results.") from error
    if len(records) != header.records:
        raise ResultsError(
            f"{file} is cut off or has grown: its first line announces {header.records} records, and {len(records)} "
            "are there. Evaluate again."
        )
    settings, texts = header.settings or {}, header.texts or {}
    return Results(records, header.model, header.revision, header.edit, settings, texts)


def _rows(file: Path, lines: TextIO) -> Iterator[object]:
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            ended = "" if line.endswith("\n") else " The line has no end, so the file was cut off."
            raise ResultsError(
                f"{file}, line {number} is not JSON ({error}).{ended} Evaluate again."
            ) from error


def _row(kind: type[Row], file: Path, number: int, row: object) -> Row:
    try:
        return from_json(kind, row, "record")
    except ValueError as error:
        raise ResultsError(f"{file}, line {number}: {error} The file is damaged; evaluate again.") from error


def _check_header(file: Path, row: object) -> _Header:
    header = cast("Mapping[str, object]", row if isinstance(row, dict) else {})
    if header.get("kind") != KIND or not isinstance(header.get("records"), int):
        raise ResultsError(
            f"{file} does not begin with the header of a file of results. `errata evaluate --output` writes such files."
        )
    if header.get("schema") not in READABLE:
        raise ResultsError(
            f"{file} has schema version {header.get('schema')!r}, and this Errata reads versions up to {SCHEMA}. "
            "Read it with the Errata that wrote it, or evaluate again."
        )
    return _row(_Header, file, 1, header)
