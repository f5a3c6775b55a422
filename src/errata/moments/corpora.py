"""The texts that second moments are measured on: the embedded corpus, a file, or a data set of the hub.

A corpus is named by one word: `embedded`, `texts`, `statements`, `written`, the path of a file (`.txt`: one document a
line; `.jsonl`: one object a line, the text in a field of it; both also as `.gz`), or a data set,
`id[@revision][:config[:split]]`, for example `wikimedia/wikipedia:20231101.en`. With `+statements` behind it, the short
statements stand among its documents.
"""

import gzip
import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from errata.errors import CovarianceError, CovarianceMissing
from errata.moments.statements import FILE as STATEMENTS_FILE
from errata.moments.statements import short_statements
from errata.moments.written import VERSION as WRITTEN_HOW

EMBEDDED = "embedded"
"""The name of the corpus that ships with Errata: text of the embedded model's world."""
WIKIPEDIA = "wikimedia/wikipedia:20231101.en"
"""What the published programs measured on, in the edition that the hub still has."""
TEXTS = "texts"
"""The name of the corpus of texts that ships with Errata: what SmolLM2-135M-Instruct wrote by itself."""
STATEMENTS = "statements"
"""The name of the corpus of short statements that ships with Errata."""
WRITTEN = "written"
"""The name of the corpus that the model writes itself."""
AMONG = f"+{STATEMENTS}"
"""Behind the name of a corpus: as much of the short statements, among its documents."""
LONGEST = 4096
"""Characters of a document that count, when documents and statements are to be of like length in all."""
SHARDS_AT_ONCE = 64
"""Of a data set's files, so many are open at a time."""
FORMS = (
    "Give 'embedded', 'texts', 'statements', 'written', a .txt file (one document a line), a .jsonl file, or a data "
    f"set of the hub as id[@revision][:config[:split]], for example {WIKIPEDIA}."
)
FILE_ENDINGS = (".txt", ".jsonl", ".json", ".gz")


@dataclass(frozen=True)
class HubCorpus:
    """A data set of the Hugging Face hub, and the part of it to read."""

    id: str
    revision: str | None
    config: str | None
    split: str

    @property
    def label(self) -> str:
        """The same in one word, with nothing left to defaults."""
        return f"{self.id}{f'@{self.revision}' if self.revision else ''}:{self.config or ''}:{self.split}"


@runtime_checkable
class _Stream(Protocol):
    """What is used of `datasets.IterableDataset`."""

    @property
    def num_shards(self) -> int: ...

    def shard(self, num_shards: int, index: int) -> "_Stream": ...

    def __iter__(self) -> Iterator[dict[str, object]]: ...


def corpus_texts(
    corpus: str, column: str = "text", write: Callable[[], Iterator[str]] | None = None
) -> Iterator[str]:
    """The documents of a corpus, in an order that is always the same; `column` is the field with the text.

    `write` gives what the model writes itself.

    Raises:
        CovarianceMissing: there is no such file.
        CovarianceError: it cannot be read, at once or at a line that the message names.
    """
    if corpus == STATEMENTS:
        return short_statements()
    if corpus.endswith(AMONG):
        return _among(corpus_texts(corpus.removesuffix(AMONG), column, write), short_statements())
    if corpus == WRITTEN:
        if write is None:
            raise CovarianceError(
                f"Corpus {WRITTEN!r} is what a model writes itself, and none is given here."
            )
        return write()
    source = parse_corpus(corpus)
    if isinstance(source, HubCorpus):
        return _hub_texts(source, column)
    _check_file(source, corpus)
    return _file_texts(source, column)


def _among(documents: Iterator[str], statements: Iterator[str]) -> Iterator[str]:
    """Documents and statements, as many characters of these as of those, as long as there are both."""
    ahead = 0
    for document in documents:
        yield document
        ahead += min(len(document), LONGEST)
        while ahead > 0 and (statement := next(statements, "")):
            yield statement
            ahead -= len(statement)


def corpus_identity(corpus: str, column: str = "text") -> str:
    """What a corpus is, for the key of a cache: a file is told by a digest of its content, a data set by its name.

    Raises:
        CovarianceMissing: there is no such file.
        CovarianceError: the word names nothing that can be a corpus.
    """
    if corpus.endswith(AMONG):
        both = (corpus.removesuffix(AMONG), STATEMENTS)
        return " + ".join(corpus_identity(one, column) for one in both)
    if corpus == STATEMENTS:
        return f"{STATEMENTS} sha256:{hashlib.sha256(STATEMENTS_FILE.read_bytes()).hexdigest()}"
    if corpus == WRITTEN:
        return f"{WRITTEN} by the model ({WRITTEN_HOW})"
    source = parse_corpus(corpus)
    if isinstance(source, HubCorpus):
        return f"{source.label}#{column}"
    _check_file(source, corpus)
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    name = corpus if corpus in (EMBEDDED, TEXTS) else source.name
    field = f"#{column}" if _is_jsonl(source) else ""
    return f"{name}{field} sha256:{digest.hexdigest()}"


def parse_corpus(corpus: str) -> Path | HubCorpus:
    """Tell a file from a data set.

    Raises:
        CovarianceError: the word has the form of neither.
    """
    if corpus == EMBEDDED:
        return embedded_corpus()
    if corpus == TEXTS:
        return Path(__file__).parent / "texts.txt"
    path = Path(corpus).expanduser()
    if path.exists() or path.is_absolute() or corpus.startswith((".", "~")) or corpus.endswith(FILE_ENDINGS):
        return path
    match = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?(?::([^:]*))?(?::([^:]+))?", corpus)
    if match is None:
        raise CovarianceError(f"Corpus {corpus!r} is neither a file nor the name of a data set. {FORMS}")
    identity, revision, config, split = match.groups()
    return HubCorpus(identity, revision, config or None, split or "train")


def embedded_corpus() -> Path:
    """Where the embedded corpus lies inside the installed package."""
    return Path(__file__).parent.parent / "almanac" / "model" / "corpus.txt"


def _check_file(path: Path, corpus: str) -> None:
    if path.is_dir():
        raise CovarianceError(f"Corpus {corpus} is a folder. {FORMS}")
    if path.is_file():
        return
    if corpus == EMBEDDED:
        raise CovarianceMissing(
            f"The embedded corpus is not at {path}: the installation lacks it. Install Errata again."
        )
    raise CovarianceMissing(f"There is no corpus file {path}. {FORMS}")


def _is_jsonl(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith((".jsonl", ".json"))


def _file_texts(path: Path, column: str) -> Iterator[str]:
    number = 0
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield (
                        _json_text(line, column, f"{path}, line {number}")
                        if _is_jsonl(path)
                        else line.strip()
                    )
    except (UnicodeDecodeError, EOFError, OSError) as error:
        raise CovarianceError(
            f"{path} cannot be read after line {number}: {error}. It has to be UTF-8 text, whole."
        ) from error


def _opened(path: Path) -> TextIOWrapper:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _json_text(line: str, column: str, where: str) -> str:
    try:
        row = cast(object, json.loads(line))
    except ValueError as error:
        raise CovarianceError(
            f"{where}: not JSON ({error}). A .jsonl corpus has one JSON object a line."
        ) from error
    if not isinstance(row, dict):
        raise CovarianceError(
            f"{where}: not a JSON object. A .jsonl corpus has one object a line, text in {column!r}."
        )
    return _text_of(cast("dict[str, object]", row), column, where)


def _text_of(row: dict[str, object], column: str, where: str) -> str:
    """The row's text; halves of surrogate pairs, which no tokenizer takes, become question marks."""
    if column not in row:
        raise CovarianceError(
            f"{where}: no field {column!r}; there are {', '.join(map(repr, row)) or 'none'}. Name the one with the "
            "text as the column."
        )
    text = row[column]
    if not isinstance(text, str):
        raise CovarianceError(
            f"{where}: field {column!r} is {type(text).__name__}, not text. Name another column."
        )
    return text.encode("utf-8", "replace").decode("utf-8")


def _hub_texts(source: HubCorpus, column: str) -> Iterator[str]:
    """Documents of a data set, streamed, one from each of its files in turn.

    Files of a data set are often sorted (Wikipedia: by the age of the article), so its first rows would be no sample.
    """
    stream = _open_stream(source)
    shards = max(1, stream.num_shards)
    spread = [number * shards // SHARDS_AT_ONCE for number in range(SHARDS_AT_ONCE)]
    order = dict.fromkeys([*spread, *range(shards)])
    parts = (_guarded(iter(stream.shard(num_shards=shards, index=index)), source) for index in order)
    for number, row in enumerate(_in_turn(parts), start=1):
        yield _text_of(row, column, f"Data set {source.label}, row {number}")


def _open_stream(source: HubCorpus) -> _Stream:
    try:
        import datasets
    except ImportError as error:
        raise CovarianceError(
            f"Reading the data set {source.label} takes the package 'datasets', which is not installed "
            f"({error}). `pip install datasets`, or give a text file as the corpus."
        ) from error
    try:
        load = cast("Callable[..., object]", datasets.load_dataset)
        stream = load(
            source.id, name=source.config, split=source.split, revision=source.revision, streaming=True
        )
    except Exception as error:  # whatever the hub, the network and the data set's own files can raise
        raise CovarianceError(f"The data set {source.label} cannot be opened: {error}. {FORMS}") from error
    return cast(_Stream, stream)


def _guarded(rows: Iterator[dict[str, object]], source: HubCorpus) -> Iterator[dict[str, object]]:
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # the network, above all
            raise CovarianceError(
                f"The data set {source.label} could not be read on: {error}. Run the same command again: it goes on "
                "from what it has saved."
            ) from error
        yield row


def _in_turn(parts: Iterator[Iterator[dict[str, object]]]) -> Iterator[dict[str, object]]:
    """One row of each part, again and again; a part that has ended makes room for the next one."""
    going = deque(islice(parts, SHARDS_AT_ONCE))
    while going:
        part = going.popleft()
        row = next(part, None)
        if row is None:
            going.extend(islice(parts, 1))
        else:
            yield row
            going.append(part)
