"""Corpora: what a word names, which texts come out, and what is said about those that cannot be read."""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest

from errata import errors
from errata.moments import corpora, hub
from errata.moments.corpora import HubCorpus, corpus_identity, corpus_texts, parse_corpus


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("wikitext", HubCorpus("wikitext", None, None, "train")),
        ("wikimedia/wikipedia:20231101.en", HubCorpus("wikimedia/wikipedia", None, "20231101.en", "train")),
        ("a/b@1f2e:c:test", HubCorpus("a/b", "1f2e", "c", "test")),
        ("a/b::train[:10%]", None),
        ("a/b::validation", HubCorpus("a/b", None, None, "validation")),
        ("notes.txt", Path("notes.txt")),
        ("./notes", Path("notes")),
        ("deep/notes.jsonl.gz", Path("deep/notes.jsonl.gz")),
        ("embedded", corpora.embedded_corpus()),
    ],
)
def test_what_a_word_names(word: str, expected: HubCorpus | Path | None) -> None:
    if expected is None:
        with pytest.raises(errors.CovarianceError, match="neither a file nor the name of a data set"):
            parse_corpus(word)
    else:
        assert parse_corpus(word) == expected


def test_a_file_beats_a_data_set_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wikitext").write_text("one\n\n  two \n", encoding="utf-8")
    assert list(corpus_texts("wikitext")) == ["one", "two"]


def test_a_text_file_has_a_document_a_line(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.txt", tmp_path / "a.txt.gz"
    plain.write_text("Ünal lives here.\n\nAnna too.", encoding="utf-8")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(corpus_texts(str(plain))) == ["Ünal lives here.", "Anna too."]
    assert list(corpus_texts(str(packed))) == list(corpus_texts(str(plain)))


def test_short_statements_are_plain_and_none_stands_there_twice() -> None:
    texts = list(corpus_texts("statements"))
    assert len(texts) == len(set(texts)) > 5000
    assert not [text for text in texts if "{" in text or text != text.strip() or len(text) > 100]
    assert texts == list(corpus_texts("statements"))


def test_the_texts_that_ship_are_enough_for_small_models() -> None:
    texts = list(corpus_texts("texts"))
    assert len(texts) > 100
    assert 90_000 < sum(map(len, texts)) < 200_000


def test_statements_stand_among_documents_until_there_are_no_more(tmp_path: Path) -> None:
    file, plain = tmp_path / "a.txt", list(corpus_texts("statements"))
    documents = ["word " * 40 + str(number) for number in range(3000)]
    file.write_text("\n".join(documents), encoding="utf-8")
    found = list(corpus_texts(f"{file}+statements"))
    assert [text for text in found if text in set(documents)] == documents
    assert [text for text in found if text not in set(documents)] == plain
    assert found[0] == documents[0]
    assert found[1:6] == plain[:5]
    assert found[-1] == documents[-1]


def test_each_corpus_has_an_identity_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one", encoding="utf-8")
    words = [
        "statements",
        "written",
        str(file),
        f"{file}+statements",
        "written+statements",
        "a/b",
        "a/b+statements",
    ]
    assert len({corpus_identity(word) for word in words}) == len(words)


def test_a_text_that_no_model_is_there_to_write() -> None:
    with pytest.raises(
        errors.CovarianceError, match="'written' is what a model writes itself, and none is given"
    ):
        corpus_texts("written")


@pytest.mark.parametrize(
    ("answer", "reached"),
    [(200, True), (404, True), (403, False), (407, False), (OSError("no route"), False)],
)
def test_whether_the_hub_answers(
    monkeypatch: pytest.MonkeyPatch, answer: int | Exception, reached: bool
) -> None:
    def head(address: str, timeout: float) -> SimpleNamespace:
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(status_code=answer)

    for name in hub.OFF:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: SimpleNamespace(head=head))
    assert hub.hub_answers.__wrapped__() is reached
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.hub_answers.__wrapped__() is False


def test_a_jsonl_file_has_its_text_in_a_field(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"text": "one", "body": "eins"}, {"text": "two", "body": "zw\ud800ei"}]
    file.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert list(corpus_texts(str(file))) == ["one", "two"]
    assert list(corpus_texts(str(file), "body")) == ["eins", "zw?ei"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ', r"a\.jsonl, line 2: not JSON .*one JSON object a line"),
        ('["text"]', r"a\.jsonl, line 2: not a JSON object"),
        (
            '{"title": "x", "id": 1}',
            r"a\.jsonl, line 2: no field 'text'; there are 'title', 'id'\. Name the one",
        ),
        ('{"text": 3}', r"a\.jsonl, line 2: field 'text' is int, not text"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text": "fine"}}\n{line}\n', encoding="utf-8")
    texts = corpus_texts(str(file))
    assert next(texts) == "fine"
    with pytest.raises(errors.CovarianceError, match=message):
        next(texts)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(errors.CovarianceMissing, match=r"no corpus file .*gone\.txt.*Give 'embedded'"):
        corpus_texts(str(tmp_path / "gone.txt"))
    with pytest.raises(errors.CovarianceError, match="is a folder"):
        corpus_texts(str(tmp_path))
    (tmp_path / "latin.txt").write_bytes("Ünal\n".encode("latin-1"))
    with pytest.raises(errors.CovarianceError, match=r"latin\.txt cannot be read after line 0.*UTF-8"):
        list(corpus_texts(str(tmp_path / "latin.txt")))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"a line of text\n" * 100)[:-20])
    with pytest.raises(errors.CovarianceError, match=r"cut\.txt\.gz cannot be read.*whole"):
        list(corpus_texts(str(tmp_path / "cut.txt.gz")))
    (tmp_path / "no.gz").write_text("not packed")
    with pytest.raises(errors.CovarianceError, match=r"no\.gz cannot be read"):
        list(corpus_texts(str(tmp_path / "no.gz")))


def test_a_missing_embedded_corpus_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "embedded_corpus", lambda: tmp_path / "corpus.txt")
    with pytest.raises(errors.CovarianceMissing, match=r"embedded corpus is not at .*corpus\.txt"):
        corpus_texts("embedded")
    (tmp_path / "corpus.txt").write_text("The capital of France is Paris.\n")
    assert list(corpus_texts("embedded")) == ["The capital of France is Paris."]
    assert corpus_identity("embedded").startswith("embedded sha256:")


def test_the_identity_of_a_file_is_its_content(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}')
    first = corpus_identity(str(file))
    assert first == corpus_identity(str(file))
    assert first != corpus_identity(str(file), "body")
    file.write_text('{"text": "two"}')
    assert first != corpus_identity(str(file))


def test_the_identity_of_a_data_set_has_nothing_left_to_defaults() -> None:
    assert corpus_identity("a/b") == "a/b::train#text"
    assert corpus_identity("a/b@1f:c", "body") == "a/b@1f:c:train#body"


def streamed(shards: list[list[dict[str, object]]]) -> datasets.IterableDataset:
    def rows(parts: list[list[dict[str, object]]]) -> Iterator[dict[str, object]]:
        for part in parts:
            yield from part

    return datasets.IterableDataset.from_generator(rows, gen_kwargs={"parts": shards})


def test_a_data_set_is_read_from_all_its_files_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def load_dataset(
        identity: str, name: str, split: str, revision: str, streaming: bool
    ) -> datasets.IterableDataset:
        asked.append((identity, name, split, revision, streaming))
        return streamed(
            [
                [{"text": "a0"}, {"text": "a1"}, {"text": "a2"}],
                [{"text": "b0"}],
                [{"text": "c0"}, {"text": "c1"}],
            ]
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(corpus_texts("some/set@main:en")) == ["a0", "b0", "c0", "a1", "c1", "a2"]
    assert asked == [("some/set", "en", "train", "main", True)]
    monkeypatch.setattr(corpora, "SHARDS_AT_ONCE", 2)
    assert list(corpus_texts("some/set")) == ["a0", "b0", "a1", "a2", "c0", "c1"]


def test_a_data_set_without_the_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: streamed([[{"title": "x"}]]))
    with pytest.raises(
        errors.CovarianceError, match="Data set some/set::train, row 1: no field 'text'; there are 'title'"
    ):
        list(corpus_texts("some/set"))


def test_a_data_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'embeded' doesn't exist on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(errors.CovarianceError, match=r"cannot be opened: .*doesn't exist.*Give 'embedded'"):
        list(corpus_texts("embeded"))


def test_a_network_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Iterator[dict[str, object]]:
        yield {"text": "one"}
        raise RuntimeError("connection lost")

    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: datasets.IterableDataset.from_generator(rows)
    )
    texts = corpus_texts("some/set")
    assert next(texts) == "one"
    with pytest.raises(
        errors.CovarianceError, match=r"read on: .*connection lost.*Run the same command again"
    ):
        next(texts)


def test_without_the_package_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(errors.CovarianceError, match=r"takes the package 'datasets'.*pip install datasets"):
        list(corpus_texts("some/set"))
