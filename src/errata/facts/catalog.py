"""Data sets of facts by name: from a folder, or from the Hugging Face hub at a fixed revision; and seeded draws.

    counterfact                                    CounterFact (Meng et al. 2022)
    zsre                                           zsRE (Levy et al. 2017, as MEND published it)
    counterfact-neighbors-MODEL                    the neighbor-assisted subsets of paper 2
    OWNER/NAME@REVISION                            any data set of the hub whose rows are of a kind that Errata reads

What comes from the hub is kept in the cache as a JSONL file with its SHA-256 beside it: one that changed is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar, cast

from errata.errors import FactError
from errata.runtime import atomic_file, cache_root

Item = TypeVar("Item")

ENDINGS = (".jsonl.gz", ".jsonl", ".json.gz", ".json")


@dataclass(frozen=True)
class HubSource:
    """A data set of the hub; all its splits are read, in the order of their rows' case_id where they have one."""

    id: str
    revision: str
    records: int | None = None
    sha256: str | None = None
    """Of the rows as `_pack` writes them, if they were seen when this was written; else the first download's counts."""


@dataclass(frozen=True)
class DataSet:
    """A name, the file that it is in a folder of data, and where the hub has it (None: nowhere that we know)."""

    name: str
    file: str
    what: str
    hub: HubSource | None = None


NEIGHBORS = "counterfact-neighbors-"
"""Before the name of the model whose neighbors the subset has: paper 2 published three."""
CATALOG: dict[str, DataSet] = {
    one.name: one
    for one in (
        DataSet(
            "counterfact",
            "counterfact",
            "CounterFact, 21,919 records (a folder may hold MultiCounterFact instead)",
            # NOTE: the revision is as others cite it; it was not fetched when this was written, so no SHA-256 is known.
            HubSource("azhx/counterfact", "c01c413f856ee38f5c080c9fc5e87aff478e2ff9", records=21_919),
        ),
        DataSet("zsre", "zsre", "zsRE as MEND published it (zsre_mend_eval.json)"),
    )
}


def find_facts(name: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The file of facts that a word means: the file of that path, or else the data set of that name.

    With `data_dir` a data set is looked for in that folder only, otherwise on the hub (and in the cache).

    Raises:
        FactError: there is no such data set, it is not in the folder, the hub does not have it or cannot be reached, or
            what came is not what it should be.
    """
    path, word = Path(name), os.fspath(name)
    if path.exists():
        return path
    known = _known(word)
    if known is not None and data_dir is not None:
        return _in_folder(known, Path(data_dir))
    if known is not None and known.hub is None:
        raise FactError(
            f"{word} has no copy on the hub that this Errata knows by its revision. Name a folder that has it as "
            f"{known.file}.jsonl.gz: --data-dir DIR; or a data set of the hub: OWNER/NAME@REVISION."
        )
    source = _hub_source(word) if known is None else known.hub
    if source is not None:
        return _from_hub(source)
    if path.suffix or len(path.parts) > 1:
        return path
    close = get_close_matches(word, CATALOG, 1, 0.5)
    advice = (
        f"Did you mean {close[0]!r}?"
        if close
        else f"The data sets are: {', '.join((*CATALOG, NEIGHBORS + 'MODEL'))}."
    )
    raise FactError(f"There is no file {word}, and no data set of that name. {advice}")


def sample_facts(facts: Sequence[Item], count: int | None, seed: int = 0, trial: int = 1) -> list[Item]:
    """`count` facts in an order that the seed decides (all, as they are, for None).

    Trial t takes the t-th `count` of that one order, so trials of one seed share no fact, and a smaller sample is the
    beginning of a larger one's first trial. Paper 2 uses three trials of 1,000.

    Raises:
        FactError: there are not so many facts, or a trial is asked for without a count.
    """
    if count is None:
        if trial != 1:
            raise FactError(f"Trial {trial} of what? Say how many facts a trial has: --sample 1000.")
        return list(facts)
    if count < 1 or trial < 1:
        raise FactError("A sample has one fact or more, and trials are numbered from 1.")
    if count * trial > len(facts):
        raise FactError(
            f"Trial {trial} of {count} facts takes {count * trial}, and there are {len(facts)}. Ask for fewer."
        )
    order = list(range(len(facts)))
    random.Random(f"errata sample {seed}").shuffle(order)
    return [facts[index] for index in order[count * (trial - 1) : count * trial]]


def _known(word: str) -> DataSet | None:
    if word.startswith(NEIGHBORS):
        model = word.removeprefix(NEIGHBORS)
        return DataSet(word, f"counterfact_neighbors_{model}", "a neighbor-assisted subset of paper 2")
    return CATALOG.get(word)


def _in_folder(known: DataSet, folder: Path) -> Path:
    for ending in ENDINGS:
        if (folder / f"{known.file}{ending}").is_file():
            return folder / f"{known.file}{ending}"
    raise FactError(
        f"{folder} has no {known.name}: no file {known.file}{ENDINGS[0]}, nor {', '.join(ENDINGS[1:])}. Name the "
        "folder that holds it."
    )


def _hub_source(word: str) -> HubSource | None:
    """A data set of the hub by its full name; a revision is required, as without one a run cannot be repeated."""
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", word)
    return None if match is None else HubSource(match[1], match[2])


def _from_hub(source: HubSource) -> Path:
    """The file in the cache, downloaded if it is not there; what is there must be what was downloaded."""
    name = f"{source.id.replace('/', '--')}@{source.revision}"
    file = cache_root() / "facts" / f"{name}.jsonl.gz"
    noted = file.with_name(f"{name}.sha256")
    if not file.is_file():
        rows = _in_order([row for split in _download(source) for row in split])
        data = _pack(rows)
        _check(source, len(rows), data, source.sha256)
        with atomic_file(noted) as aside:
            aside.write_text(_digest(data), encoding="utf-8")
        with atomic_file(file) as aside:
            aside.write_bytes(gzip.compress(data, mtime=0))
        return file
    try:
        data = gzip.decompress(file.read_bytes())
        expected = source.sha256 or noted.read_text(encoding="utf-8")
    except (OSError, EOFError) as error:
        raise FactError(f"{file} is damaged ({error}). Remove it; it is then downloaded again.") from error
    _check(source, data.count(b"\n"), data, expected)
    return file


def _check(source: HubSource, records: int, data: bytes, expected: str | None) -> None:
    if source.records is not None and records != source.records:
        raise FactError(
            f"{source.id} at revision {source.revision} has {records} records, and should have {source.records}."
        )
    if expected is not None and _digest(data) != expected:
        raise FactError(
            f"The records of {source.id} at revision {source.revision} are not those that they should be: their "
            f"SHA-256 is {_digest(data)}, not {expected}. Remove the file from {cache_root() / 'facts'} to download it "
            "again."
        )


def _download(source: HubSource) -> Iterable[Iterable[Mapping[str, object]]]:
    """Every split of the data set, read by `datasets`."""
    try:
        import datasets

        load = cast("Callable[..., Mapping[str, Iterable[Mapping[str, object]]]]", datasets.load_dataset)
        return list(load(source.id, revision=source.revision).values())
    except Exception as error:  # whatever the hub, the network and the data set's own files can raise
        raise FactError(
            f"The data set {source.id} at revision {source.revision} cannot be loaded from the hub: {error} Try again, "
            "or name a folder that holds it: --data-dir DIR."
        ) from error


def _in_order(rows: list[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """By case_id where every row has a number; splits drawn at random then make no difference."""
    numbers = [row.get("case_id") for row in rows]
    if not all(isinstance(number, int) for number in numbers):
        return rows
    return [
        row for _, row in sorted(zip(cast("list[int]", numbers), rows, strict=True), key=lambda pair: pair[0])
    ]


def _pack(rows: Iterable[Mapping[str, object]]) -> bytes:
    lines = (json.dumps(dict(row), ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    return "".join(lines).encode("utf-8")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
