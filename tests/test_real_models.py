"""benchmarks/real_models.py: halves, cells that are never made twice, the table; and one fact in a real model."""

import argparse
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

import errata
from errata.facts.fact import Fact
from families import FACTS
from programs import benchmark
from tiny import fresh_model

QUICK = {"optimization.steps": 1}


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """The program as a module."""
    return benchmark("real_models")


@pytest.fixture
def arguments(tmp_path: Path) -> argparse.Namespace:
    texts = tmp_path / "texts.txt"
    texts.write_text("The quiet river.\nOrin Vasker plays the violin.\n")
    return argparse.Namespace(
        texts=texts,
        covariance=None,
        edits=[2],
        seeds=[0],
        rows=["unedited", "FT"],
        calibrated=None,
        values=None,
    )


def world() -> list[Fact]:
    """Known facts about subjects in two relations, each with a neighbor."""
    return [
        Fact(
            prompt,
            f"{name} {number}",
            "violin",
            "harp",
            relation_id=prompt,
            neighborhood_prompts=["Hale Corvin plays the"],
        )
        for number in range(4)
        for name, prompt in (("Orin", "{} plays the"), ("Edda", "{} was born in"))
    ]


def test_a_subject_is_in_one_half_and_both_halves_have_some(program: ModuleType) -> None:
    halves = [program.half_of(f"subject {number}") for number in range(200)]
    assert 70 < halves.count("held-out") < 130
    assert set(halves) == {"held-out", "development"}
    assert halves == [program.half_of(f"subject {number}") for number in range(200)]


def test_a_cell_asks_statements_of_other_relations_that_the_edit_never_sees(program: ModuleType) -> None:
    facts = world()
    cell = program.Cell.of(facts, facts, 2, seed=0)
    assert len({fact.subject for fact in cell.facts}) == 2
    for one in cell.apart:
        own = one.fact.prompt.replace("{}", one.fact.subject)
        assert own not in one.statements
        assert not {text.replace(one.fact.subject, "{}") for text in one.statements} & set(
            one.fact.preserve_prompts
        )
    assert not {fact.question for fact in cell.facts} & set(cell.unrelated)
    assert program.Cell.of(facts, facts, 2, seed=0) == cell
    with pytest.raises(SystemExit, match="8 subjects"):
        program.Cell.of(facts, facts, 9, seed=0)


def test_a_cell_is_stored_and_the_model_is_as_it_was(
    program: ModuleType, arguments: argparse.Namespace, tmp_path: Path
) -> None:
    model, facts = fresh_model(), world()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    cell = program.Cell.of(facts, facts, 2, seed=0)
    for label, row in (("unedited", None), ("FT", program.Row("finetune"))):
        program.run_cell(model, cell, row, 0, tmp_path / f"{label}-2-seed0.json", arguments)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    head, _, unedited, edited = program.markdown(tmp_path, arguments).splitlines()
    assert unedited.count("|") == edited.count("|") == head.count("|")
    assert "| 100.0" in unedited
    assert "| 1.000 |" in unedited
    assert edited.startswith("| 2 (x1) | FT |")


def test_every_row_is_a_request_that_can_be_prepared(program: ModuleType) -> None:
    model, facts = fresh_model(), world()[:1]
    rows = {**program.ROWS, **program.MAP}
    for row in filter(None, rows.values()):
        request = errata.EditRequest(facts, row.method, row.settings, contexts=[""])
        flat = {one.name: one.value for one in errata.prepare(model, request).setting_rows()}
        given = {name: value for name, value in row.settings.items() if value is not None}
        assert {name: flat[name] for name in given} == given
    published = rows["MEMIT-published"]
    assert published is not None
    assert published.settings["solve.covariance_weight"] == 15000


def test_the_map_has_a_line_for_each_method_that_is_stored(
    program: ModuleType, arguments: argparse.Namespace, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    model = fresh_model()
    facts = [replace(fact, paraphrase_prompts=(f"They say that {fact.question}",)) for fact in world()]
    arguments.output, arguments.split = tmp_path, "development"
    folder = tmp_path / "tiny" / "development"
    folder.mkdir(parents=True)
    cell = program.Cell.of(facts, facts, 2, seed=0)
    program.run_cell(model, cell, program.Row("finetune"), 0, folder / "pmet-at-0.6-2-seed0.json", arguments)
    drawn = program.draw_map("tiny", arguments).read_text()
    assert "pmet" in drawn
    assert "memit" not in drawn


def test_one_fact_in_a_real_model(program: ModuleType, tmp_path: Path) -> None:
    folder = program.models_folder() / "smollm2"
    if not (folder / "config.json").is_file():
        pytest.skip(f"no SmolLM2 in {folder.parent}: python benchmarks/real_models.py fetch smollm2")
    model = errata.load(str(folder))
    fact = Fact("The capital of {} is", "France", "Rome", "Paris")
    assert program.known_facts(model, [fact, *FACTS]).facts == (fact,)
