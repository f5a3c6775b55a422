"""Files of facts that cannot be read, or that say something doubtful: every problem is named with its line."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from errata.errors import AmbiguousSubject, EmptyTarget, FactError, SubjectNotInPrompt
from errata.facts.fact import fact_from_json
from errata.facts.reading import Problem, check_facts, read_facts
from fact_rows import (
    COUNTERFACT,
    OWN,
    SUBSET,
    ZSRE,
    own,
    write,
)


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.jsonl"


def test_a_good_file_has_no_problems(path: Path):
    assert check_facts(write(path, OWN, COUNTERFACT, SUBSET, ZSRE)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty. Write one JSON object a line into it."),
        (b" \n\n", "the file is empty."),
        (b"[ ]", "the file holds no record: its list is empty."),
        (gzip.compress(b"{}", mtime=0)[:-9], "the file is a gzip file that is damaged or ends too early."),
        (b"\x1f\x8bnonsense", "the file is a gzip file that is damaged or ends too early."),
        (b'{"prompt":\n"\xff"}', "the file is not UTF-8 text: byte 0xff in line 2. Save it as UTF-8."),
    ],
)
def test_a_file_that_cannot_be_read(path: Path, content: bytes, message: str):
    path.write_bytes(content)
    problem = only(check_facts(path))
    assert (problem.line, problem.field, problem.severity) == (None, "file", "error")
    assert problem.message in message or message.removeprefix("the file ") in problem.message
    with pytest.raises(FactError) as caught:
        read_facts(path)
    assert str(caught.value).startswith(f"Facts cannot be read from {path}: {message}")
    with pytest.raises(FactError):
        read_facts(path, skip_invalid=True)


def test_a_missing_file_and_a_folder(tmp_path: Path):
    with pytest.raises(FactError, match=r"nowhere\.jsonl: the file does not exist\. Check the path\."):
        read_facts(tmp_path / "nowhere.jsonl")
    assert str(only(check_facts(tmp_path / "nowhere.jsonl"))) == "file: does not exist. Check the path."
    assert only(check_facts(tmp_path)).message == "is a folder. Name a file in it."


def test_bad_json_names_its_line_and_the_rest_is_checked(path: Path):
    problems = check_facts(
        write(path, own(), '{"prompt": "x", }', "", "not json", own(subject="Ostrania"), "[1]")
    )
    assert [problem.line for problem in problems] == [2, 4, 6]
    assert problems[0].field == "record"
    assert problems[0].message.startswith("is not JSON: ")
    assert problems[0].message.endswith("(column 17).") or "column" in problems[0].message
    assert problems[1].message == "is not JSON: Expecting value (column 1)."
    assert problems[2].message == "must be a JSON object, and is a list."
    with pytest.raises(FactError, match=r"line 2, record: is not JSON"):
        read_facts(path)


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ('[\n{"a": 1},\n{"b": }]', 3, "is not JSON: Expecting value"),
        ('[\n{"prompt": "a"}\n{"b": 1}]', 3, "is not JSON: there is no ',' here."),
        ('[\n{"prompt": "a"},', 2, "is not JSON: Expecting value"),
        ('[\n{"prompt": "a"}\n', 3, "is not JSON: the file ends before the array's ']'. Is it complete?"),
        ('[\n{"prompt": "a"}\n]\n{}', 4, "is not JSON: the file goes on after the array's ']'."),
        ('[\n{"prompt": "a"},\n\n7]', 4, "must be a JSON object, and is a number."),
        ('{"prompt": "a"\n}\n{"b": \n}', 4, "is not JSON: Expecting value"),
    ],
)
def test_bad_json_in_arrays_and_long_objects(path: Path, content: str, line: int, message: str):
    path.write_text(content)
    problem = check_facts(path)[-1]
    assert problem.line == line
    assert message in problem.message


def test_numbers_and_depths_that_python_refuses_are_problems(path: Path):
    problems = check_facts(write(path, own(), '{"case_id": ' + "9" * 5000 + "}", "[" * 100_000))
    assert [problem.line for problem in problems] == [2, 3]
    assert all(problem.message.startswith("is not JSON") for problem in problems)


def test_in_an_array_the_line_is_where_the_record_starts(path: Path):
    path.write_text(json.dumps([own(), own(subject="Lund"), own(subject="")], indent=1))
    problem = only(check_facts(path))
    assert (problem.line, problem.field) == (12, "subject")
    assert path.read_text().splitlines()[problem.line - 1].strip() == "{"


def test_a_record_of_no_known_kind_names_the_known_ones(path: Path):
    problem = only(check_facts(write(path, {"question": "q", "answer": "a"})))
    assert (problem.line, problem.field) == (1, "record")
    assert problem.message.startswith(
        "is of no kind that Errata reads. Its fields: question, answer. Known kinds: "
    )
    for word in ("target_new", "requested_rewrite", "ground_truth", "src, answers"):
        assert word in problem.message


def test_unknown_and_missing_fields(path: Path):
    problems = check_facts(write(path, own(prompt=..., promt="The capital of {} is"), own(colour="red")))
    assert [(problem.line, problem.field) for problem in problems] == [
        (1, "promt"),
        (1, "prompt"),
        (2, "colour"),
    ]
    assert problems[0].message == "is no field that Errata knows. Did you mean 'prompt'?"
    assert problems[1].message == "is missing; every fact needs it."
    assert problems[2].message.startswith(
        "is no field that Errata knows. Known are: prompt, subject, target_new"
    )


def test_every_problem_of_a_record_is_listed_at_once(path: Path):
    bad = own(case_id=9, subject=3, target_new="", paraphrase_prompts=["ok", 4], neighbors=[{"prompt": "x"}])
    problems = check_facts(write(path, own(), bad))
    assert [(problem.line, problem.field, problem.case_id) for problem in problems] == [
        (2, "subject", 9),
        (2, "target_new", 9),
        (2, "paraphrase_prompts[1]", 9),
        (2, "neighbors[0].subject", 9),
        (2, "neighbors[0].target", 9),
    ]
    assert str(problems[1]) == (
        "line 2, target_new (case_id 9): is empty. Write the answer that is expected, or remove the record."
    )


@pytest.mark.parametrize(
    ("record", "field", "error"),
    [
        (own(prompt="The capital is"), "prompt", SubjectNotInPrompt),
        (own(prompt="Valdoria, dear Valdoria, is"), "prompt", AmbiguousSubject),
        (own(target_new=" "), "target_new", EmptyTarget),
        (ZSRE | {"src": "Who drew the bridge?"}, "src", SubjectNotInPrompt),
        (ZSRE | {"src": "Is Tarn Bridge Tarn Bridge?"}, "src", AmbiguousSubject),
        (ZSRE | {"answers": []}, "answers[0]", FactError),
        (ZSRE | {"answers": [" "]}, "answers[0]", EmptyTarget),
        (ZSRE | {"rephrase": 5}, "rephrase", FactError),
        (ZSRE | {"loc": ""}, "loc", FactError),
        (ZSRE | {"loc_ans": ""}, "loc_ans", EmptyTarget),
        (SUBSET | {"prompt": "It was created by"}, "prompt", SubjectNotInPrompt),
        (SUBSET | {"ground_truth": ""}, "ground_truth", EmptyTarget),
        (
            SUBSET | {"locality": {"neighborhood": {"prompt": ["a", "b"], "ground_truth": ["c"]}}},
            "locality.neighborhood[1].target",
            FactError,
        ),
        (COUNTERFACT | {"requested_rewrite": None}, "requested_rewrite.prompt", FactError),
        (COUNTERFACT | {"paraphrase_prompts": [None]}, "paraphrase_prompts[0]", FactError),
        (COUNTERFACT | {"neighborhood_samples": ["x"]}, "neighborhood_samples[0]", FactError),
        (
            COUNTERFACT | {"neighborhood_samples": [{"subject": "A", "prompt": "B is"}]},
            "neighborhood_samples[0].prompt",
            SubjectNotInPrompt,
        ),
    ],
)
def test_problems_are_told_in_the_words_of_the_record(
    path: Path, record: dict[str, Any], field: str, error: type[FactError]
):
    write(path, own(), record)
    problem = check_facts(path)[0]
    assert (problem.line, problem.field, problem.severity, problem.error) == (2, field, "error", error)
    with pytest.raises(FactError) as caught:
        read_facts(path)
    assert type(caught.value) is error
    assert f"{path} has records that cannot be used:\n  line 2, {field}" in str(caught.value)
    assert str(caught.value).endswith(f"`errata facts check {path}` lists all.")
    assert [fact.subject for fact in read_facts(path, skip_invalid=True)] == ["Valdoria"]


def test_the_error_shows_the_first_five_problems(path: Path):
    with pytest.raises(EmptyTarget) as caught:
        read_facts(write(path, *(own(subject=f"S{index}", target_new="") for index in range(8))))
    lines = str(caught.value).splitlines()
    assert len(lines) == 8
    assert lines[1].startswith("  line 1, target_new: is empty.")
    assert lines[6] == "  ... and 3 more"


def test_a_target_that_is_true_already_is_a_warning(path: Path, caplog: pytest.LogCaptureFixture):
    problem = only(check_facts(write(path, own(target_true="Kestrel "))))
    assert (problem.line, problem.field, problem.severity) == (1, "target_new", "warning")
    assert problem.message == "is the true answer already, 'Kestrel': nothing new is written."
    with caplog.at_level(logging.WARNING, "errata.facts"):
        assert len(read_facts(path)) == 1
    assert "line 1, target_new: is the true answer already" in caplog.text


def test_prompts_that_nobody_answers_or_fills_are_warnings(path: Path):
    row = own(neighborhood_prompts=["Lund is"], attribute_prompts=["{} is"])
    problems = check_facts(write(path, row))
    assert [(problem.field, problem.severity) for problem in problems] == [
        ("neighborhood_prompts", "warning"),
        ("attribute_prompts[0]", "warning"),
    ]
    assert "Add target_true" in problems[0].message
    assert "Write the question out." in problems[1].message


def test_duplicates_and_contradictions_name_the_other_line(path: Path, caplog: pytest.LogCaptureFixture):
    same = own(prompt="The capital of Valdoria is ")
    problems = check_facts(write(path, own(), same, own(subject="Lund"), own(target_new="Tarn")))
    assert [(problem.line, problem.field, problem.severity) for problem in problems] == [
        (2, "record", "error"),
        (4, "target_new", "error"),
    ]
    assert problems[0].message.startswith("is a duplicate of line 1: the same subject, prompt and target.")
    assert problems[1].message == (
        "contradicts line 1: 'The capital of Valdoria is' has conflicting targets: 'Kestrel' (line 1) and "
        "'Tarn' (line 4). "
        "Keep one of them."
    )
    with caplog.at_level(logging.WARNING, "errata.facts"):
        assert len(read_facts(path)) == 4
    assert "contradicts line 1" in caplog.text


def test_many_doubts_are_logged_in_short(path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "errata.facts"):
        read_facts(write(path, *(own(subject=f"S{index}", target_true="Kestrel") for index in range(9))))
    assert len(caplog.records) == 6
    assert "4 more problems" in caplog.text


def test_a_row_by_itself_is_judged_like_a_line_of_a_file():
    with pytest.raises(FactError, match="promt: is no field that Errata knows"):
        fact_from_json(own(prompt=..., promt="x"))
