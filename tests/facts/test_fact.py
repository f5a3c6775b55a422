"""Facts: what a constructor accepts, what each kind of file says, and every message about bad input."""

from __future__ import annotations

import gzip
import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errata.errors import AmbiguousSubject, EmptyTarget, FactError, SubjectNotInPrompt
from errata.facts.fact import FIELDS, Fact, Problem, check_facts, fact_from_json, read_facts, write_facts
from errata.facts.probes import Neighbor, Probe
from errata.runtime import to_json

# One record of each kind, in the shape that was published, with a world of its own.
OWN: dict[str, Any] = {
    "prompt": "The harbour of {} lies on the",
    "subject": "Port Avel",
    "target_new": "North Sea",
    "target_true": "Adriatic",
    "paraphrase_prompts": ["Ships bound for {} cross the"],
    "neighborhood_prompts": [
        "The harbour of Duskwell lies on the",
        {"prompt": "Tarn lies on the", "target": "Po"},
    ],
    "neighbors": [{"prompt": "The harbour of {} lies on the", "subject": "Duskwell", "target": "Adriatic"}],
    "generation_prompts": ["From the quays of {} you see"],
    "relation_id": "sea",
    "case_id": "a-7",
    "same_subject_prompts": [{"prompt": "The mayor of {} is", "target": "Orin Vasker"}],
    "unrelated_prompts": [{"prompt": "Copper is a", "target": "metal"}],
    "attribute_prompts": ["The harbour of Hull lies on the"],
    "reference_texts": ["Hull is a harbour on the North Sea."],
    "preserve_prompts": ["The mayor of Port Avel is called", "The bridge of {} was built by"],
    "edit_prompts": ["The quays of Port Avel are on the"],
}
COUNTERFACT: dict[str, Any] = {
    "case_id": 31,
    "pararel_idx": 4,
    "requested_rewrite": {
        "prompt": "{} plays the",
        "relation_id": "P1303",
        "target_new": {"str": "violin", "id": "Q1"},
        "target_true": {"str": "harp", "id": "Q2"},
        "subject": "Orin Vasker",
    },
    "paraphrase_prompts": ["It rained. Orin Vasker is a master of the"],
    "neighborhood_prompts": ["Petra Lund plays the", "Hale Corvin plays the"],
    "attribute_prompts": ["Mira Tolland plays the"],
    "generation_prompts": ["Orin Vasker studied the"],
    "neighborhood_samples": [
        {"subject": "Petra Lund", "prompt": "{} plays the"},
        {"subject": "Hale Corvin", "prompt": "{} plays the"},
    ],
}
SUBSET: dict[str, Any] = {
    "prompt": "Zentro, created by",
    "target_new": "Lumbra",
    "ground_truth": "Bellwether",
    "portability": {},
    "locality": {"neighborhood": {"prompt": ["Zentro II is a product of"], "ground_truth": ["Bellwether"]}},
    "subject": "Zentro",
    "rephrase_prompt": ["It was late. Zentro is a product of"],
    "neighborhood_samples": [{"subject": "Zentrino", "prompt": "{}, created by"}],
    "case_id": 5,
}
ZSRE: dict[str, Any] = {
    "subject": "Tarn Bridge",
    "src": "Who was the designer of Tarn Bridge?",
    "pred": "Edda Rowe",
    "rephrase": "Which engineer drew up the plans of Tarn Bridge?",
    "alt": "Jonas Whitlock",
    "answers": ["Hale Corvin", "H. Corvin"],
    "loc": "nq question: when was the steam engine built",
    "loc_ans": "1712",
    "cond": "Edda Rowe >> Jonas Whitlock || Who was the designer of Tarn Bridge?",
    "neighborhood_samples": [{"subject": "steam engine", "prompt": "nq question: when was the {} built?"}],
}


def write(path: Path, *records: object) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def own(**changes: object) -> dict[str, object]:
    """A short row of Errata's own, changed; a field set to `...` is left out."""
    row: dict[str, object] = {
        "prompt": "The capital of {} is",
        "subject": "Valdoria",
        "target_new": "Kestrel",
    }
    return {name: value for name, value in (row | changes).items() if value is not ...}


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.jsonl"


# ---- the dataclasses


def test_a_fact_settles_lists_mappings_and_white_space():
    fact = Fact(
        prompt="The capital of {} is \n",
        subject=" Valdoria ",
        target_new=" Kestrel\n",
        target_true=" Mirenth",
        paraphrase_prompts=["\n\nValdoria's  capital, "],
        neighborhood_prompts=["Ostrania's capital is ", {"prompt": "Lund is in ", "target": " Tarn"}],
    )
    assert (fact.prompt, fact.subject) == ("The capital of {} is", "Valdoria")
    assert (fact.target_new, fact.target_true) == ("Kestrel", "Mirenth")
    assert fact.paraphrase_prompts == ("\n\nValdoria's  capital,",)
    assert fact.neighborhood_prompts == ("Ostrania's capital is", Probe("Lund is in", "Tarn"))
    assert fact.neighborhood == (Probe("Ostrania's capital is", "Mirenth"), Probe("Lund is in", "Tarn"))
    assert fact.question == "The capital of Valdoria is"
    assert fact.key == ("Valdoria", "The capital of {} is")
    assert hash(fact) == hash(fact_from_json(to_json(fact)))


@pytest.mark.parametrize(
    ("prompt", "template"),
    [
        ("Rome is the capital of", "{} is the capital of"),
        ("Who founded Rome?", "Who founded {}?"),
        ("It stands in Rome", "It stands in {}"),
        ("Rome", "{}"),
        ("{Rome} and {curly}", "{{}} and {curly}"),
        ("{0} is {}", "{0} is {}"),
        ("Rome, seen from {}", "Rome, seen from {}"),
    ],
)
def test_a_prompt_with_its_subject_becomes_a_template(prompt: str, template: str):
    for made in (Fact(prompt, "Rome", "x"), Neighbor(prompt, "Rome", "x")):
        start, end = made.subject_span
        assert made.prompt == template
        assert made.question == prompt.replace("{}", "Rome")
        assert made.question[start:end] == "Rome"
        assert (made.question[:start], made.question[end:]) == tuple(template.split("{}"))


def test_plain_neighborhood_prompts_are_left_out_without_a_true_target():
    fact = Fact("{} is", "A", "b", neighborhood_prompts=("C is", Probe("D is", "e")))
    assert fact.neighborhood == (Probe("D is", "e"),)


def test_a_slot_in_prompts_about_the_same_subject_is_filled():
    fact = fact_from_json(OWN)
    assert fact.paraphrase_prompts == ("Ships bound for Port Avel cross the",)
    assert fact.generation_prompts == ("From the quays of Port Avel you see",)
    assert fact.same_subject_prompts == (Probe("The mayor of Port Avel is", "Orin Vasker"),)


def test_edit_prompts_stay_templates():
    assert fact_from_json(OWN).edit_prompts == ("The quays of {} are on the",)


def test_preserve_prompts_stay_templates():
    expected = ("The mayor of {} is called", "The bridge of {} was built by")
    assert fact_from_json(OWN).preserve_prompts == expected
    assert fact_from_json(to_json(fact_from_json(OWN))).preserve_prompts == expected


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"preserve_prompts": ["{} is", "Tarn is in"]},
            SubjectNotInPrompt,
            "preserve_prompts[1]: Subject 'Rome' does not occur",
        ),
        ({"preserve_prompts": ["Rome is Rome"]}, AmbiguousSubject, "preserve_prompts[0]: Subject 'Rome'"),
        ({"preserve_prompts": "{} is"}, FactError, "preserve_prompts: must be a list, and is a text."),
        (
            {"prompt": "Tarn is in"},
            SubjectNotInPrompt,
            "prompt: Subject 'Rome' does not occur in 'Tarn is in'.",
        ),
        ({"prompt": "ROME is in"}, SubjectNotInPrompt, "It occurs with other capital letters."),
        ({"prompt": "Rome is Rome in"}, AmbiguousSubject, "prompt: Subject 'Rome' occurs more than once"),
        ({"prompt": "{} is {}"}, AmbiguousSubject, "prompt: has 2 '{}'"),
        ({"prompt": " "}, FactError, "prompt: is empty."),
        ({"subject": ""}, FactError, "subject: is empty."),
        ({"subject": "a {}"}, FactError, "subject: holds '{}'"),
        ({"target_new": "  "}, EmptyTarget, "target_new: is empty. Write the answer that is expected"),
        ({"target_true": ""}, EmptyTarget, "target_true: is empty."),
        ({"target_new": 7}, FactError, "target_new: must be a text in quotes, and is a number."),
        ({"target_new": "\ud800"}, FactError, "target_new: holds half of a surrogate pair"),
        ({"paraphrase_prompts": "Rome"}, FactError, "paraphrase_prompts: must be a list, and is a text."),
        ({"paraphrase_prompts": ("a", "")}, FactError, "paraphrase_prompts[1]: is empty."),
        (
            {"unrelated_prompts": ("a",)},
            FactError,
            "unrelated_prompts[0]: must be an object with prompt, target",
        ),
        ({"unrelated_prompts": ({"prompt": "a"},)}, FactError, "unrelated_prompts[0].target: is missing."),
        (
            {"neighbors": ({"prompt": "a", "subject": "b", "target": "c"},)},
            SubjectNotInPrompt,
            "neighbors[0].prompt",
        ),
        ({"case_id": True}, FactError, "case_id: must be a whole number or a text, and is true or false."),
        ({"relation_id": 3}, FactError, "relation_id: must be a text"),
    ],
)
def test_a_fact_that_cannot_be_used_says_why(changes: dict[str, Any], error: type[FactError], message: str):
    with pytest.raises(FactError) as caught:
        fact_from_json({"prompt": "{} lies in", "subject": "Rome", "target_new": "x"} | changes)
    assert type(caught.value) is error
    assert message in str(caught.value)


def test_accents_stored_in_two_ways_are_named():
    with pytest.raises(SubjectNotInPrompt, match="how accents are stored"):
        Fact("Cafe\u0301 Lund is in", "Caf\u00e9 Lund", "x")


def test_an_overlapping_second_occurrence_is_seen():
    with pytest.raises(AmbiguousSubject):
        Fact("anana is", "ana", "x")


def test_the_constructors_raise_the_same_errors():
    with pytest.raises(
        SubjectNotInPrompt, match=r"Fact about 'Rome' \(case_id 4\): prompt: Subject 'Rome' does not"
    ):
        Fact("Tarn is in", "Rome", "x", case_id=4)
    with pytest.raises(EmptyTarget, match="Probe: target: is empty"):
        Probe("a", " ")
    with pytest.raises(EmptyTarget, match="Neighbor 'a': target: is empty"):
        Neighbor("{} is", "a", "")


# ---- the round trip

# Rows are drawn, not facts: the type checks of the tests use `random`, which hypothesis forbids where it draws.

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
filled = texts.map(lambda text: f"{text}|").map(str.strip)
subjects = filled.filter(lambda text: "{}" not in text)
prompts = subjects
templates = st.tuples(subjects, texts).map("{}".join).filter(lambda text: text.count("{}") == 1)
probes = st.fixed_dictionaries({"prompt": prompts, "target": filled})
neighbors = st.fixed_dictionaries({"prompt": templates, "subject": subjects, "target": filled})


def lists(members: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(members, min_size=1, max_size=2)


rows = st.fixed_dictionaries(
    {"prompt": templates, "subject": subjects, "target_new": filled},
    optional={
        "target_true": filled,
        "paraphrase_prompts": lists(prompts),
        "neighborhood_prompts": lists(prompts | probes),
        "neighbors": lists(neighbors),
        "generation_prompts": lists(prompts),
        "relation_id": texts,
        "case_id": st.integers() | texts,
        "same_subject_prompts": lists(probes),
        "unrelated_prompts": lists(probes),
        "attribute_prompts": lists(prompts),
        "reference_texts": lists(texts),
    },
)


@settings(deadline=None, max_examples=100)
@given(rows)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]):
    fact = fact_from_json(row)
    file = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    write_facts(file, [fact])
    assert read_facts(file) == [fact]
    assert fact_from_json(to_json(fact)) == fact
    assert replace(fact, target_new="other").key == fact.key


def test_default_fields_are_left_out():
    row = to_json(Fact("{} is", "A", "b"))
    assert row == {"prompt": "{} is", "subject": "A", "target_new": "b"}


def test_gzip_is_written_by_name_and_read_by_content(tmp_path: Path):
    packed, plain = tmp_path / "facts.jsonl.gz", tmp_path / "renamed.txt"
    write_facts(packed, [fact_from_json(OWN)])
    write_facts(tmp_path / "again.gz", [fact_from_json(OWN)])
    assert packed.read_bytes() == (tmp_path / "again.gz").read_bytes()
    packed.rename(plain)
    assert read_facts(plain) == [fact_from_json(OWN)]


# ---- each kind of record


def test_own_rows(path: Path):
    (fact,) = read_facts(write(path, OWN))
    assert fact.case_id == "a-7"
    assert fact.neighborhood == (
        Probe("The harbour of Duskwell lies on the", "Adriatic"),
        Probe("Tarn lies on the", "Po"),
    )
    assert fact.neighbors == (Neighbor("The harbour of {} lies on the", "Duskwell", "Adriatic"),)
    assert fact.reference_texts == ("Hull is a harbour on the North Sea.",)


def test_counterfact_records(path: Path):
    (fact,) = read_facts(write(path, COUNTERFACT))
    assert fact == Fact(
        prompt="{} plays the",
        subject="Orin Vasker",
        target_new="violin",
        target_true="harp",
        target_id="Q1",
        paraphrase_prompts=("It rained. Orin Vasker is a master of the",),
        neighborhood_prompts=("Petra Lund plays the", "Hale Corvin plays the"),
        neighbors=(
            Neighbor("{} plays the", "Petra Lund", "harp"),
            Neighbor("{} plays the", "Hale Corvin", "harp"),
        ),
        generation_prompts=("Orin Vasker studied the",),
        relation_id="P1303",
        case_id=31,
        attribute_prompts=("Mira Tolland plays the",),
    )


def test_counterfact_records_with_more_fields(path: Path):
    more = {
        name: OWN[name]
        for name in ("same_subject_prompts", "unrelated_prompts", "reference_texts", "neighbors")
    }
    (fact,) = read_facts(write(path, COUNTERFACT | more))
    assert fact.same_subject_prompts == (Probe("The mayor of Orin Vasker is", "Orin Vasker"),)
    assert fact.unrelated_prompts == (Probe("Copper is a", "metal"),)
    assert fact.neighbors == (Neighbor("The harbour of {} lies on the", "Duskwell", "Adriatic"),)


def test_a_counterfact_template_may_name_its_subject_too(path: Path):
    rewrite = COUNTERFACT["requested_rewrite"] | {"prompt": "{}, not the other Orin Vasker, plays the"}
    (fact,) = read_facts(write(path, COUNTERFACT | {"requested_rewrite": rewrite}))
    assert fact.subject_span == (0, 11)


def test_neighbor_assisted_records(path: Path):
    (fact,) = read_facts(write(path, SUBSET))
    assert fact == Fact(
        prompt="{}, created by",
        subject="Zentro",
        target_new="Lumbra",
        target_true="Bellwether",
        paraphrase_prompts=("It was late. Zentro is a product of",),
        neighborhood_prompts=(Probe("Zentro II is a product of", "Bellwether"),),
        neighbors=(Neighbor("{}, created by", "Zentrino", "Bellwether"),),
        case_id=5,
    )


def test_zsre_records(path: Path):
    _, fact = read_facts(write(path, ZSRE | {"src": "Who built Tarn Bridge?"}, ZSRE))
    assert fact == Fact(
        prompt="Who was the designer of {}?",
        subject="Tarn Bridge",
        target_new="Hale Corvin",
        paraphrase_prompts=("Which engineer drew up the plans of Tarn Bridge?",),
        neighborhood_prompts=(Probe("nq question: when was the steam engine built?", "1712"),),
        neighbors=(Neighbor("nq question: when was the {} built?", "steam engine", "1712"),),
        case_id=1,
    )


def test_a_zsre_record_may_lack_what_is_not_needed(path: Path):
    needed = {name: ZSRE[name] for name in ("subject", "src", "answers")}
    (fact,) = read_facts(write(path, needed))
    assert fact == Fact("Who was the designer of {}?", "Tarn Bridge", "Hale Corvin", case_id=0)


@pytest.mark.parametrize(
    "record", [OWN, COUNTERFACT, SUBSET, ZSRE], ids=["own", "counterfact", "subset", "zsre"]
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_kind_reads_from_every_container(path: Path, record: dict[str, Any], packed: bool):
    contents = [
        json.dumps(record),
        "\ufeff" + json.dumps(record) + "\r\n\r\n",
        json.dumps(record, indent=2),
        json.dumps([record]),
        "\n" + json.dumps([record], indent=1, ensure_ascii=False) + "\n\n",
    ]
    read: list[list[Fact]] = []
    for content in contents:
        data = content.encode("utf-8")
        path.write_bytes(gzip.compress(data) if packed else data)
        read.append(read_facts(path))
    assert len(read[0]) == 1
    assert all(facts == read[0] for facts in read)


def test_kinds_may_be_mixed_and_unicode_line_ends_are_no_line_ends(path: Path):
    odd = json.dumps(own(paraphrase_prompts=["a\u2028b\x85c"]), ensure_ascii=False)
    read = read_facts(write(path, odd, COUNTERFACT, ZSRE, SUBSET))
    assert [fact.subject for fact in read] == ["Valdoria", "Orin Vasker", "Tarn Bridge", "Zentro"]
    assert read[0].paraphrase_prompts == ("a\u2028b\x85c",)


def test_the_examples_of_the_documentation_read(path: Path):
    page = Path(__file__).resolve().parents[2] / "docs" / "facts.md"
    examples = [
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]
    assert len(examples) == 5
    for example in examples:
        assert check_facts(write(path, example)) == []
    assert set(examples[1]) == set(FIELDS)


# ---- bad files


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
        "contradicts line 1: the same subject and prompt, with the target 'Kestrel' there and 'Tarn' here. "
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


# ---- the published files

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PUBLISHED = {
    "counterfact.jsonl.gz": (17_000, 2),
    "counterfact_neighbors_gpt-j-6b.jsonl.gz": (960, 0),
    "counterfact_neighbors_gpt2-xl.jsonl.gz": (739, 0),
    "counterfact_neighbors_llama-2-7b.jsonl.gz": (1_340, 0),
    "zsre.jsonl.gz": (17_000, 1),
}


@pytest.mark.slow
def test_the_published_files_read():
    """In a process of its own: the type checks that the tests switch on would make it take minutes."""
    if not SHARED.is_dir():
        pytest.skip("the published data sets are not beside this checkout")
    program = """
import json, sys
from pathlib import Path
from errata.facts import check_facts, read_facts
counts = {}
for path in map(Path, sys.argv[1:]):
    facts = read_facts(path)
    assert all(fact.neighbors and fact.neighborhood for fact in facts)
    counts[path.name] = [len(facts), len(check_facts(path))]
print(json.dumps(counts))
"""
    command = [sys.executable, "-c", program, *(str(SHARED / name) for name in PUBLISHED)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {name: tuple(counts) for name, counts in json.loads(done.stdout).items()} == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files_start_well(name: str, path: Path):
    if not (SHARED / name).exists():
        pytest.skip("the published data sets are not beside this checkout")
    with gzip.open(SHARED / name, "rt", encoding="utf-8") as file:
        path.write_text("".join(next(file) for _ in range(20)), encoding="utf-8")
    assert check_facts(path) == []
    assert len(read_facts(path)) == 20
