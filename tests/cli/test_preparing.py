"""`errata edit --neighbors`, `--preserve` and `errata facts neighbors`: what is edited, with what, and what is told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import errata
from cli_world import LAYERS, QUICK, answer, failed, flat, run
from errata.facts.fact import Fact
from errata.facts.probes import Neighbor
from errata.facts.reading import write_facts
from errata.methods.registry import METHODS
from families import SENTENCES
from tiny import SAYS, parrot

HARP = Fact(
    "{} plays the",
    "Orin Vasker",
    "violin",
    SAYS,
    neighborhood_prompts=("Mira Tolland plays the", "Hale Corvin plays the", "Edda Rowe plays the"),
    relation_id="plays",
)
TONGUE = Fact("The mother tongue of {} is", "Jonas Whitlock", "Kestrel", "Velish", relation_id="tongue")


@dataclass(frozen=True)
class Place:
    """A model that says one word, its second moments, and facts of which one qualifies."""

    model: Path
    moments: Path
    facts: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("parrot")
    model = parrot()
    model.model.save_pretrained(root / "model")
    model.tokenizer.save_pretrained(root / "model")
    (root / "corpus.txt").write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    write_facts(root / "facts.jsonl", [HARP, TONGUE])
    options = ("--layers", LAYERS, "--corpus", root / "corpus.txt", "--output", root / "moments")
    assert run("covariance", "collect", root / "model", *options).exit_code == 0
    return Place(root / "model", root / "moments", root / "facts.jsonl")


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))


def words(place: Place, output: Path, *more: str, facts: Path | None = None) -> Sequence[str | Path]:
    known = ("--facts", facts or place.facts, "--covariance", place.moments, "--output", output)
    return ("edit", place.model, *known, *QUICK, *more)


def test_auto_edits_the_facts_that_qualify_with_a_neighbor_of_weight_1(place: Place, tmp_path: Path) -> None:
    told: Any = answer(*words(place, tmp_path / "edit", "--neighbors", "auto"))
    assert told["settings"]["values.neighbor_weight"] == 1
    assert (told["neighbors"]["facts"], told["neighbors"]["qualified"]) == (2, 1)
    (left_out,) = told["neighbors"]["not_qualified"]
    assert left_out["subject"] == "Jonas Whitlock"
    (written,) = errata.load_edit(tmp_path / "edit").facts
    assert len(written.neighbors) == 1
    assert written.neighbors[0].question in HARP.neighborhood_prompts
    assert errata.read_facts(tmp_path / "edit" / "facts.jsonl") == [written]


def test_auto_says_how_many_qualified_and_what_to_evaluate_with(place: Place, tmp_path: Path) -> None:
    done = run(*words(place, tmp_path / "edit", "--neighbors", "auto"))
    assert "1 of 2 facts qualified for neighbor-assisted editing" in flat(done.stdout)
    assert "the model answers 3 of 3 questions" in flat(done.stdout)
    assert "it has neither neighbors nor" in flat(done.stdout)
    assert f"--facts {tmp_path / 'edit' / 'facts.jsonl'}" in flat(done.stderr)


def test_settings_of_the_command_line_go_before(place: Place, tmp_path: Path) -> None:
    more = ("--neighbors", "auto", "--set", "values.neighbor_weight=0", "--set", "values.neighbor_count=2")
    told: Any = answer(*words(place, tmp_path / "edit", *more, "--keep-unqualified"))
    assert told["settings"]["values.neighbor_weight"] == 0
    written = errata.load_edit(tmp_path / "edit").facts
    assert [len(fact.neighbors) for fact in written] == [2, 0]


def test_neighbors_of_the_file(place: Place, tmp_path: Path) -> None:
    write_facts(tmp_path / "f.jsonl", [replace(HARP, neighbors=(Neighbor("{} plays the", "Ada", "horn"),))])
    told: Any = answer(*words(place, tmp_path / "edit", "--neighbors", "file", facts=tmp_path / "f.jsonl"))
    assert told["settings"]["values.neighbor_weight"] == 1
    assert told["neighbors"] is None
    assert not (tmp_path / "edit" / "facts.jsonl").exists()


def test_the_rest_of_the_subject(place: Place, tmp_path: Path) -> None:
    told: Any = answer(*words(place, tmp_path / "edit", "--preserve", "subject"))
    assert told["settings"]["values.preserve"] == "subject"
    written = errata.load_edit(tmp_path / "edit").facts
    assert [fact.preserve_prompts for fact in written] == [(TONGUE.prompt,), (HARP.prompt,)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--neighbors", "file"), "No fact of the file has neighbors"),
        (("--set", "values.neighbor_weight=1"), "No fact of the file has neighbors"),
        (("--neighbors", "none", "--set", "values.neighbor_weight=1"), "neighbor_weight=1 contradicts"),
        (("--preserve", "none", "--set", "values.preserve=subject"), "preserve=subject contradicts"),
        (("--keep-unqualified",), "Keeping unqualified facts (--keep-unqualified) requires --neighbors auto"),
        (("--neighbors", "nearby"), "'nearby' is not one of"),
    ],
)
def test_what_cannot_be_is_refused(place: Place, tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    assert message in failed(*words(place, tmp_path / "edit", *more))
    assert not (tmp_path / "edit").exists()


def test_no_fact_qualifies_and_nothing_to_preserve(place: Place, tmp_path: Path) -> None:
    write_facts(tmp_path / "f.jsonl", [TONGUE])
    for more, message in (
        (("--neighbors", "auto"), "No fact qualifies for neighbor-assisted editing"),
        (("--preserve", "subject"), "There is nothing to preserve"),
    ):
        assert message in failed(*words(place, tmp_path / "edit", *more, facts=tmp_path / "f.jsonl"))


def test_a_method_without_values_has_no_neighbors(place: Place, tmp_path: Path) -> None:
    methods = METHODS.values()
    without = next(row.name for row in methods if not row.optimizes_values)
    message = failed(*words(place, tmp_path / "edit", "--neighbors", "auto", "--method", without))
    assert f"--neighbors is for methods that optimize values, and {without} does not" in message


def test_facts_neighbors_writes_the_facts_that_qualify(place: Place, tmp_path: Path) -> None:
    output = tmp_path / "found.jsonl"
    told: Any = answer("facts", "neighbors", place.model, place.facts, "--output", output, "--count", "2")
    assert (told["facts"], told["qualified"], told["asked"], told["answered"]) == (2, 1, 3, 3)
    (fact,) = errata.read_facts(output)
    assert (len(fact.neighbors), len(fact.neighborhood_prompts)) == (2, 1)
    assert "exists already" in failed("facts", "neighbors", place.model, place.facts, "--output", output)
