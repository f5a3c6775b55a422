"""Files of facts as they are found, and published records turned into rows of Errata's own format.

Read here are JSONL and JSON arrays, gzipped or not: what a file is, its content says, not its name. Nothing is
judged here but the JSON: `errata.facts` says what is wrong with a row.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import cast

KINDS = (
    "Errata's own (prompt, subject, target_new ...)",
    "CounterFact (requested_rewrite ...)",
    "its neighbor-assisted subsets (prompt, ground_truth, locality ...)",
    "zsRE (src, answers ...)",
)

MOST_BYTES = 2**30
"""Of a file of facts, unpacked: ten times all that were published. A small gzip file can hold any number of them."""


@dataclass(frozen=True)
class Record:
    """One JSON value and the line it starts in; `error` says why there is none (no line: the whole file)."""

    line: int | None
    value: object = None
    error: str | None = None


@dataclass(frozen=True)
class Row:
    """A published record in Errata's own fields, and how the published record calls each of them."""

    values: Mapping[str, object]
    names: Mapping[str, str] = field(default_factory=dict[str, str])

    def published_name(self, name: str) -> str:
        """`target_new` -> `answers[0]`, `neighbors[2].subject` -> `neighborhood_samples[2].subject`."""
        for own, published in self.names.items():
            if name == own or name.startswith((own + "[", own + ".")):
                return published + name[len(own) :]
        return name


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Every value of a JSONL file or JSON array, with its line; an unreadable file is one `Record`."""
    text, error = _read_text(Path(path))
    start = _skip(text, 0)
    if error is None and start == len(text):
        error = "is empty. Write one JSON object a line into it."
    if error is not None:
        yield Record(None, error=error)
    elif text[start] == "[":
        yield from _array(text, start + 1)
    elif _spans_lines(text, start):
        yield from _values(text, start)
    else:
        yield from _lines(text)


def published_row(record: Mapping[str, object], index: int) -> Row | None:
    """The row of a record of a published kind, or None for any other; `index` counts the file's records from 0."""
    for marks, convert in _PUBLISHED:
        if any(mark in record for mark in marks):
            return convert(record, index)
    return None


# ---- files

_SPACE = re.compile(r"[ \t\r\n]*")
_GZIP = b"\x1f\x8b"
_TOO_LARGE = f"holds more than {MOST_BYTES >> 20} MB, unpacked. Split it into several files."


def _read_text(path: Path) -> tuple[str, str | None]:
    """The file's text, or why there is none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return "", _TOO_LARGE
        data = path.read_bytes()
    except FileNotFoundError:
        return "", "does not exist. Check the path."
    except IsADirectoryError:
        return "", "is a folder. Name a file in it."
    except OSError as error:
        return "", f"cannot be opened: {error.strerror}."
    if data.startswith(_GZIP):
        try:
            with gzip.GzipFile(fileobj=BytesIO(data)) as unpacked:
                data = unpacked.read(MOST_BYTES + 1)
        except (EOFError, OSError, zlib.error):
            return "", "is a gzip file that is damaged or ends too early. Download or pack it again."
        if len(data) > MOST_BYTES:
            return "", _TOO_LARGE
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return "", f"is not UTF-8 text: byte {data[error.start]:#04x} in line {line}. Save it as UTF-8."


def _lines(text: str) -> Iterator[Record]:
    # Not splitlines(): a JSON string may hold U+2028 and its like unescaped, and they end no line of JSONL.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield Record(number, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Record(number, error=_json_message(error))


def _spans_lines(text: str, start: int) -> bool:
    """Whether the first value is a JSON object written over several lines."""
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return False
    return text[start] == "{" and "\n" in text[start:end]


def _value(decoder: json.JSONDecoder, text: str, position: int, line: int) -> tuple[Record, int]:
    """The object at a position of a line, or why it cannot be read; and where it ends."""
    try:
        value, end = decoder.raw_decode(text, position)
    except (ValueError, RecursionError) as error:
        return Record(_error_line(error, line), error=_json_message(error)), position
    return Record(line, value), end


def _values(text: str, position: int) -> Iterator[Record]:
    """Objects one after the other, each over many lines or one; broken JSON ends the reading."""
    decoder, counter = json.JSONDecoder(), _LineCounter(text)
    while position < len(text):
        record, position = _value(decoder, text, position, counter.line(position))
        yield record
        if record.error:
            return
        position = _skip(text, position)


def _array(text: str, position: int) -> Iterator[Record]:
    """The members of an array; broken JSON ends the reading."""
    decoder, counter = json.JSONDecoder(), _LineCounter(text)
    position = _skip(text, position)
    closed = text.startswith("]", position)
    while not closed:
        record, position = _value(decoder, text, position, counter.line(position))
        yield record
        if record.error:
            return
        position = _skip(text, position)
        closed = text.startswith("]", position)
        if not closed and not text.startswith(",", position):
            ends = position >= len(text)
            what = (
                "the file ends before the array's ']'. Is it complete?" if ends else "there is no ',' here."
            )
            yield Record(counter.line(position), error=f"is not JSON: {what}")
            return
        position = _skip(text, position + 1)
    rest = _skip(text, position + 1)
    if rest < len(text):
        yield Record(counter.line(rest), error="is not JSON: the file goes on after the array's ']'.")


class _LineCounter:
    """The line of a position, counted on from the last position asked for."""

    def __init__(self, text: str) -> None:
        self._text, self._position, self._line = text, 0, 1

    def line(self, position: int) -> int:
        self._line += self._text.count("\n", self._position, position)
        self._position = position
        return self._line


def _skip(text: str, position: int) -> int:
    """Where the white space that begins at a position ends."""
    match = _SPACE.match(text, position)
    return position if match is None else match.end()


def _error_line(error: Exception, line: int) -> int:
    return error.lineno if isinstance(error, json.JSONDecodeError) else line


def _json_message(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg} (column {error.colno})."
    return f"is not JSON that can be read: {error}."


# ---- published records

_ABSENT = object()

_COPIED = (
    "case_id",
    "join",
    "paraphrase_prompts",
    "neighborhood_prompts",
    "neighbors",
    "generation_prompts",
    "attribute_prompts",
    "same_subject_prompts",
    "unrelated_prompts",
    "reference_texts",
    "preserve_prompts",
    "edit_prompts",
    "reversed_prompts",
    "two_hop_prompts",
)


def _counterfact(record: Mapping[str, object], index: int) -> Row:
    """Meng et al. 2022: `requested_rewrite` with a template, and two objects as `{"str", "id"}`."""
    found = {
        "prompt": _dig(record, "requested_rewrite", "prompt"),
        "subject": _dig(record, "requested_rewrite", "subject"),
        "target_new": _dig(record, "requested_rewrite", "target_new", "str"),
        "target_true": _dig(record, "requested_rewrite", "target_true", "str"),
        "relation_id": _dig(record, "requested_rewrite", "relation_id"),
        "target_id": _dig(record, "requested_rewrite", "target_new", "id"),
    }
    values = {name: value for name, value in found.items() if value is not _ABSENT}
    values["neighbors"] = _neighbors(record, values.get("target_true"))
    values.update({name: record[name] for name in _COPIED if name in record})
    names = {name: f"requested_rewrite.{name}" for name in ("prompt", "subject", "relation_id")}
    names |= {name: f"requested_rewrite.{name}.str" for name in ("target_new", "target_true")}
    names["target_id"] = "requested_rewrite.target_new.id"
    return Row(values, names | _neighbor_names(record))


def _neighbor_subset(record: Mapping[str, object], index: int) -> Row:
    """The neighbor-assisted subsets: the subject stands in the prompt, the old object is `ground_truth`."""
    values = {
        name: record[name]
        for name in ("prompt", "subject", "target_new", "case_id", "join")
        if name in record
    }
    truth = record.get("ground_truth")
    values["target_true"] = truth
    values["paraphrase_prompts"] = _as_list(record.get("rephrase_prompt"))
    prompts = _as_list(_dig(record, "locality", "neighborhood", "prompt"))
    answers = _as_list(_dig(record, "locality", "neighborhood", "ground_truth"))
    pairs = zip_longest(prompts, answers, fillvalue=_ABSENT)
    values["neighborhood_prompts"] = [_present(prompt=prompt, target=answer) for prompt, answer in pairs]
    values["neighbors"] = _neighbors(record, truth)
    names = {
        "target_true": "ground_truth",
        "paraphrase_prompts": "rephrase_prompt",
        "neighborhood_prompts": "locality.neighborhood",
    }
    return Row(values, names | _neighbor_names(record))


def _zsre(record: Mapping[str, object], index: int) -> Row:
    """Levy et al. 2017, as MEND published it: `src` asks, `answers[0]` is written, `loc` is unrelated."""
    answers = _as_list(record.get("answers"))
    values: dict[str, object] = {"case_id": record.get("case_id", index)}
    values |= _present(prompt=record.get("src", _ABSENT), subject=record.get("subject", _ABSENT))
    values |= _present(target_new=answers[0] if answers else _ABSENT, join=record.get("join", _ABSENT))
    values["paraphrase_prompts"] = _as_list(record.get("rephrase"))
    unrelated = _present(prompt=_asked(record.get("loc", _ABSENT)), target=record.get("loc_ans", _ABSENT))
    values["neighborhood_prompts"] = [unrelated] if unrelated else []
    values["neighbors"] = _neighbors(record, record.get("loc_ans"))
    names = {
        "prompt": "src",
        "target_new": "answers[0]",
        "paraphrase_prompts[0]": "rephrase",
        "neighborhood_prompts[0].prompt": "loc",
        "neighborhood_prompts[0].target": "loc_ans",
    }
    return Row(values, names | _neighbor_names(record))


_PUBLISHED: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, object], int], Row]], ...] = (
    (("requested_rewrite",), _counterfact),
    (("src", "answers"), _zsre),
    (("ground_truth", "rephrase_prompt", "locality"), _neighbor_subset),
)


def _dig(record: object, *path: str) -> object:
    """The value at the end of a path of keys, or `_ABSENT`."""
    for name in path:
        if not isinstance(record, Mapping):
            return _ABSENT
        record = cast("Mapping[str, object]", record).get(name, _ABSENT)
    return record


def _present(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not _ABSENT}


def _as_list(value: object) -> Sequence[object]:
    """The list as it is, nothing as an empty one, and anything else as the one member of a list."""
    if value is None or value is _ABSENT:
        return []
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _asked(question: object) -> object:
    """The unrelated question with the question mark that the records lack and their evaluation appends."""
    if isinstance(question, str) and question.strip():
        question = question.rstrip()
        return question if question.endswith("?") else question + "?"
    return question


def _neighbors(record: Mapping[str, object], target: object) -> list[object]:
    """`neighborhood_samples` as neighbors that keep the old object; none where the old object is not told."""
    if not isinstance(target, str) or not target.strip():
        return []
    neighbors: list[object] = []
    for sample in _as_list(record.get("neighborhood_samples")):
        if isinstance(sample, Mapping):
            given = cast("Mapping[str, object]", sample)
            sample = {name: given[name] for name in ("prompt", "subject") if name in given}
            sample["target"] = given.get("target", target)
        neighbors.append(sample)
    return neighbors


def _neighbor_names(record: Mapping[str, object]) -> dict[str, str]:
    return {} if "neighbors" in record else {"neighbors": "neighborhood_samples"}
