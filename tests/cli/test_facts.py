"""`errata facts check`, and files of facts that a command cannot read."""

import json
from pathlib import Path

import pytest

from cli_world import World, answer, failed, flat, run
from errata.facts.fact import Fact
from errata.facts.reading import read_facts, write_facts
from tiny import SAYS, parrot

FOUR = ("edit", "almanac", "--output", "out", "--facts")


def test_facts_check_of_a_good_file(world: World) -> None:
    done = run("facts", "check", world.facts)
    assert done.exit_code == 0
    assert "4 facts can be used, and nothing is wrong." in flat(done.stdout)


def test_facts_check_lists_every_problem_and_exits_with_1(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(
        '{"prompt": "The {} is", "subject": "sky", "target_new": ""}\n{"prompt": \n', encoding="utf-8"
    )
    done = run("facts", "check", file)
    assert done.exit_code == 1
    assert "2 errors; 0 facts can be used." in flat(done.stdout)
    asked = run("facts", "check", file, "--json")
    assert asked.exit_code == 1
    found = json.loads(asked.stdout)
    assert [(row["line"], row["severity"]) for row in found["problems"]] == [(1, "error"), (2, "error")]


def test_facts_check_with_warnings_alone_exits_with_0(tmp_path: Path) -> None:
    file = tmp_path / "doubtful.jsonl"
    row = {"prompt": "The {} is", "subject": "sky", "target_new": "blue [b]", "target_true": "blue [b]"}
    file.write_text(json.dumps(row), encoding="utf-8")
    done = run("facts", "check", file)
    assert done.exit_code == 0
    assert "1 warning; 1 fact can be used." in flat(done.stdout)
    assert "'blue [b]'" in done.stdout


def test_facts_check_of_nothing(tmp_path: Path) -> None:
    assert "There is no file" in failed("facts", "check", tmp_path / "nothing.jsonl")


def test_missing_facts(tmp_path: Path) -> None:
    message = failed(*FOUR, tmp_path / "nothing.jsonl")
    assert "nothing.jsonl" in message
    assert "cannot be read" in message


def test_empty_facts(tmp_path: Path) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text("", encoding="utf-8")
    assert "empty.jsonl" in failed(*FOUR, file)


def test_bad_json_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    file.write_text(
        '{"prompt": "The {} is", "subject": "sky", "target_new": "blue"}\n{"pro', encoding="utf-8"
    )
    message = failed(*FOUR, file)
    assert "line 2" in message
    assert "errata facts check" in message


@pytest.fixture(scope="module")
def parrot_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that answers "the" to everything."""
    folder = tmp_path_factory.mktemp("parrot") / "model"
    model = parrot()
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def asked(file: Path, *answers: str) -> Path:
    """A file of facts with these true answers."""
    names = ("Orin Vasker", "Mira Tolland", "Edda Rowe")
    facts = [
        Fact("{} plays the", name, "violin", answer) for name, answer in zip(names, answers, strict=True)
    ]
    write_facts(file, facts)
    return file


def test_known_facts_are_written_in_order(parrot_folder: Path, tmp_path: Path) -> None:
    file, output = asked(tmp_path / "facts.jsonl", SAYS, "harp", SAYS), tmp_path / "known.jsonl"
    words = ("facts", "known", parrot_folder, "--facts", file)
    assert answer(*words, "--output", output) == {"output": str(output), "known": 2, "asked": 3}
    assert [fact.subject for fact in read_facts(output)] == ["Orin Vasker", "Edda Rowe"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts.jsonl", "known.jsonl"]
    assert "exists already" in failed(*words, "--output", output)


def test_known_facts_of_a_draw_up_to_a_limit(parrot_folder: Path, tmp_path: Path) -> None:
    file, output = asked(tmp_path / "facts.jsonl", SAYS, "harp", SAYS), tmp_path / "known.jsonl"
    words = ("facts", "known", parrot_folder, "--facts", file, "--sample", "2", "--limit", "1")
    done = run(*words, "--output", output)
    assert "of 1 fact are known" in flat(done.stdout) or "of 2 facts are known" in flat(done.stdout)
    assert "2 facts of the 3" in flat(done.stderr)
    assert len(read_facts(output)) == 1


def test_a_model_that_knows_nothing_writes_no_file(parrot_folder: Path, tmp_path: Path) -> None:
    file, output = asked(tmp_path / "facts.jsonl", "harp", "harp", "harp"), tmp_path / "known.jsonl"
    message = failed("facts", "known", parrot_folder, "--facts", file, "--output", output)
    assert "knows none of the 3 facts" in message
    assert [path.name for path in tmp_path.iterdir()] == ["facts.jsonl"]
