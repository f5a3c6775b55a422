"""`errata facts check`, and files of facts that a command cannot read."""

import json
from pathlib import Path

from cli_world import World, failed, flat, run

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
