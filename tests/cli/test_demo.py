"""`errata demo`: the story on a tiny model, which facts it takes, and what it leaves behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import errata
from cli_world import World, failed, flat, the_world
from errata.almanac.split import halves
from errata.cli.demo import MARK, MOST, Line, check_demo_output, lines_of, play, run_demo
from errata.cli.demo_facts import FAMOUS, famous_facts
from errata.cli.terminal import session
from errata.errors import OutputExists
from errata.runtime.progress import silent

SETTINGS: dict[str, object] = {"layers": "1-2", "values.steps": 4, "solve.covariance_weight": 20}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The tiny model, with its second moments in the place of those that the demo would measure."""
    world = the_world()
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("errata.planning.plan.ensure", lambda *_: world.moments)
    return world


@pytest.fixture
def tell(world: World, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the demo on the tiny model, and gives what it says on stdout."""

    def run(output: Path, as_json: bool = False) -> str:
        with session(seed=0, quiet=True, as_json=as_json) as terminal:
            check_demo_output(output)
            facts = errata.read_facts(world.facts)
            run_demo(terminal, errata.load(world.model), facts, output, settings=SETTINGS)
        return capsys.readouterr().out

    return run


def test_the_demo_tells_its_story(tell: Callable[..., str], tmp_path: Path) -> None:
    output = tmp_path / "errata-demo"
    said = flat(tell(output))
    assert "asked Orin Vasker plays the" in said
    assert "reworded I think. Orin Vasker plays the" in said
    assert "neighbor Hale Corvin plays the" in said
    assert "Efficacy, success" in said
    assert "all 12 answers are again the old ones, and every weight is what it was, bit for bit" in said
    assert f"errata show {output}" in said


def test_the_demo_leaves_an_edit_that_can_be_used(tell: Callable[..., str], tmp_path: Path) -> None:
    told: Any = json.loads(tell(tmp_path / "errata-demo", as_json=True))
    assert told["reverted"] == {"answers_that_differ": 0, "weights_identical": True}
    edit = errata.load_edit(tmp_path / "errata-demo")
    assert len(edit.facts) == 4
    assert edit.measured["after.efficacy_success"] == told["scores"]["after"]["efficacy_success"]["mean"]
    assert len(errata.read_facts(tmp_path / "errata-demo" / "facts.jsonl")) == 4
    assert len(errata.results.load_results(tmp_path / "errata-demo").records) == 4


def test_a_demo_replaces_a_demo_and_nothing_else(tell: Callable[..., str], tmp_path: Path) -> None:
    output = tmp_path / "errata-demo"
    tell(output)
    before = (output / MARK).stat().st_mtime_ns
    tell(output)
    assert (output / MARK).stat().st_mtime_ns > before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "edit.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputExists, match="no demo made it"):
        check_demo_output(tmp_path / "mine")
    assert "no demo made it" in failed("demo", "--output", tmp_path / "mine")


def test_the_model_is_left_as_it_was(world: World) -> None:
    model = errata.load(world.model)
    fingerprint = model.measure_fingerprint()
    story = play(model, errata.read_facts(world.facts), "pmet", 0, SETTINGS, silent)
    assert model.measure_fingerprint() == fingerprint
    assert story.identical
    assert [line.before for line in story.lines] == [line.reverted for line in story.lines]


def test_what_counts_as_right() -> None:
    assert Line("asked", "", "Rome", before="Paris.", edited="Rome.").right
    assert not Line("asked", "", "Rome", before="Paris.", edited="Paris.").right
    assert Line("neighbor", "", "Oslo", before="Bergen.", edited="Bergen.").right
    assert not Line("neighbor", "", "Oslo", before="Oslo.", edited="Rome.").right


def test_the_neighbor_is_one_with_the_old_answer() -> None:
    fact = errata.Fact(
        prompt="{} lies in",
        subject="Rome",
        target_new="France",
        target_true="Italy",
        neighborhood_prompts=(
            errata.Probe("Oslo lies in", "Norway"),
            errata.Probe("Palermo lies in", "Italy"),
        ),
    )
    assert [line.question for line in lines_of(fact)] == ["Rome lies in", "Palermo lies in"]


def test_the_facts_are_well_known_and_from_the_held_out_half() -> None:
    facts = famous_facts(MOST, seed=0)
    assert len({(fact.subject, fact.relation_id) for fact in facts}) == MOST
    assert {halves()[fact.subject] for fact in facts} == {"held-out"}


def test_a_few_facts_are_of_as_many_relations() -> None:
    facts = famous_facts(8, seed=5)
    assert len({fact.relation_id for fact in facts}) == 8
    assert facts == famous_facts(8, seed=5)
    assert facts != famous_facts(8, seed=6)
    assert {fact.relation_id for fact in famous_facts(MOST, seed=1)} == set(FAMOUS)
