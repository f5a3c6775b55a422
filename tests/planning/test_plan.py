"""One door: the command line, Python and the web UI make the same edit from the same words."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import errata
from cli_world import run, the_world
from errata.errors import FactError, SettingsError
from errata.facts.fact import Fact
from errata.facts.reading import write_facts
from errata.methods.registry import METHODS
from errata.models.model import EditableModel
from errata.planning.plan import prepare
from errata.planning.request import EditRequest
from errata.web.forms import Draft
from errata.web.session import Session
from errata.web.strength import Choice
from families import CONTEXTS, FACTS, tiny_model
from method_cases import CASES
from moments_cases import Moments

TOGETHER = (
    replace(FACTS[0], relation_id="P36"),
    Fact("The seat of government of {} is", "Hale Corvin", "Kestrel", "Mirenth", relation_id="P36"),
    replace(FACTS[1], relation_id="P1303"),
    Fact("The mother tongue of {} is", "Valdoria", "Velish", "Tarnish", relation_id="P103"),
)
"""Two wordings of one relation, and one subject in two relations: there are other wordings, and statements to keep."""


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return errata.load(the_world().model)


def flattened(values: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{before}{name}.")
        else:
            yield before + name, value


def on_the_command_line(
    method: str, settings: Mapping[str, object], moments: Path, folder: Path
) -> errata.Edit:
    write_facts(folder / "facts.jsonl", TOGETHER)
    words = [f"--set={name}={json.dumps(value)}" for name, value in flattened(settings)]
    words += ["--facts", str(folder / "facts.jsonl"), "--method", method, "--covariance", str(moments)]
    done = run("edit", the_world().model, *words, "--output", folder / "edit", "--seed", "3")
    assert done.exit_code == 0, done.output
    return errata.load_edit(folder / "edit")


def in_python(
    model: EditableModel, method: str, settings: Mapping[str, object], moments: Path
) -> errata.Edit:
    return errata.edit(model, TOGETHER, method, settings, covariance=moments, seed=3)


def in_the_web_ui(
    model: EditableModel, method: str, settings: Mapping[str, object], moments: Path
) -> errata.Edit:
    session = Session(model, moments, seed=3)
    try:
        space = session.workspace(None)
        drafts = [Draft(fact) for fact in TOGETHER]
        done = session.edit(space, drafts, Choice(method, "normal", dict(settings), "")).wait()
        assert done.state == "done", done.message
        return space.stack.edit(space.stack.names[0])
    finally:
        session.close()


@pytest.mark.parametrize("method", METHODS)
def test_the_command_line_python_and_the_web_ui_make_the_same_edit(
    method: str, model: EditableModel, moments: Moments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, folder = CASES[method].given(model), moments(tiny_model("gpt2"))
    edits: list[errata.Edit] = []
    for way in ("cli", "python", "web"):
        monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / way))  # nothing is taken over from the way before
        (tmp_path / way).mkdir()
        if way == "cli":
            edits.append(on_the_command_line(method, settings, folder, tmp_path / way))
        elif way == "python":
            edits.append(in_python(model, method, settings, folder))
        else:
            edits.append(in_the_web_ui(model, method, settings, folder))
    first = edits[0]
    for other in edits[1:]:
        assert other.facts == first.facts
        assert other.origin.settings == first.origin.settings
        assert other.origin.contexts == first.origin.contexts
        assert other.deltas.keys() == first.deltas.keys()
        for path, delta in first.deltas.items():
            mine, theirs = delta.tensors, other.deltas[path].tensors
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_two_site_gets_its_rows_beside_the_facts(model: EditableModel, moments: Moments) -> None:
    """Without them it would keep less of the subject's other facts: they are part of the request, not of a caller."""
    request = EditRequest(
        TOGETHER, "two_site", CASES["two_site"].given(model), covariance=moments(tiny_model("gpt2"))
    )
    facts = prepare(model, request).facts
    assert facts[0].edit_prompts == ("The seat of government of {} is",)
    assert "The mother tongue of {} is" not in facts[0].preserve_prompts  # what the edit changes is not kept
    assert "{} plays the" in facts[0].preserve_prompts


def test_preparing_runs_nothing(model: EditableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr(EditableModel, "_call", never)
    for method in METHODS:
        request = EditRequest(TOGETHER, method, CASES[method].given(model), neighbors=None)
        assert prepare(model, request).method.name == method


def test_what_cannot_be_is_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(SettingsError, match="requires --neighbors auto"):
        EditRequest(FACTS, "pmet", keep_unqualified=True)
    with pytest.raises(SettingsError, match="for methods that optimize values, and finetune does not"):
        EditRequest(FACTS, "finetune", preserve="subject")
    with pytest.raises(SettingsError, match="always knows the keys of earlier edits"):
        EditRequest(FACTS, "alphaedit", hold=False)


def test_facts_that_are_none_or_contradict_each_other(model: EditableModel) -> None:
    with pytest.raises(FactError, match="There are no facts to write"):
        prepare(model, EditRequest((), "pmet"))
    with pytest.raises(FactError, match="contradict"):
        prepare(model, EditRequest((FACTS[0], replace(FACTS[0], target_new="Lindale")), "pmet"))


def test_a_strategy_on_a_stack(model: EditableModel, moments: Moments, tmp_path: Path) -> None:
    """Iterations, batches and stacks are words of one request, so they go together."""
    from errata.edits.stacks import new_stack

    stack = new_stack(tmp_path / "stack", model)
    words = {"contexts": CONTEXTS, "covariance": moments(tiny_model("gpt2"))}
    settings = CASES["memit"].given(model)
    first = errata.edit(model, FACTS[:2], "memit", settings, stack=stack, **words)
    stack = stack.add("one", first, stack.names)
    strategy = errata.Strategy(iterations=2, stop="never")
    before = model.measure_fingerprint()
    second = errata.edit(model, FACTS[2:], "memit", settings, stack=stack, strategy=strategy, **words)
    assert model.measure_fingerprint() == before
    assert [write["iteration"] for write in second.history] == [1, 2]
    assert stack.add("two", second, stack.names).names == ("one", "two")


# --- the plan, shown -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_says_where_each_setting_comes_from(method: str, model: EditableModel) -> None:
    plan = prepare(model, EditRequest(TOGETHER, method, CASES[method].given(model)))
    rows = {row.name: row for row in plan.setting_rows()}
    for name, value in flattened(CASES[method].given(model)):
        assert rows[name].source == "your settings"
        assert rows[name].value == (tuple(value) if isinstance(value, list) else value)
    assert plan.method.context_count == len(plan.method.contexts(model, 0))
    text = str(plan)
    assert all(f"  {name} = " in text for name in rows)


def test_the_sources_of_settings(model: EditableModel) -> None:
    plan = prepare(model, EditRequest(TOGETHER, "memit", {"values.steps": 3}, preserve="subject"))
    sources = {row.name: row.source for row in plan.setting_rows()}
    assert sources["values.steps"] == "your settings"
    assert sources["values.preserve"] == "an option (--neighbors, --preserve, --check)"
    assert sources["layers"] == "rule"
    assert sources["values.clamp"] == "defaults of memit"
    assert sources["values.neighbor_prefix"] == "built-in default"
    named = prepare(model, EditRequest(TOGETHER, "memit", {"layers": [1]}, preset="llama-2-iterative"))
    assert {row.name: row.source for row in named.setting_rows()}[
        "values.clamp"
    ] == "preset llama-2-iterative"


def test_the_costs_of_a_plan_grow_with_its_work(model: EditableModel) -> None:
    few = prepare(model, EditRequest(TOGETHER[:1], "memit")).costs()
    assert few.rows == {"prompts behind contexts": 6.0, "neutral prompts": 1.0}
    kept = prepare(model, EditRequest(TOGETHER, "memit", preserve="subject")).costs()
    assert kept.rows["other statements"] > 0
    rome = prepare(model, EditRequest(TOGETHER[:1], "rome")).costs()
    assert rome.rows["prompts behind contexts"] == 21
    assert few.seconds is not None
    assert few.seconds > 0
    assert prepare(model, EditRequest(TOGETHER, "finetune")).costs().seconds is None


def test_the_command_shows_the_plan_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    world = the_world()
    output = tmp_path / "edit"
    done = run("edit", world.model, "-f", world.facts, "--method", "pmet", "--output", output, "--plan")
    assert done.exit_code == 0, done.output
    assert "solve.realised_share" in done.stdout
    assert "solve.covariance_weight" not in done.stdout, "of alternatives, the one that is set"
    assert "known once the second moments are measured" in " ".join(done.stdout.split())
    assert "to be measured on" in " ".join(done.stdout.split())
    assert "Nothing was computed" in done.stderr
    assert not output.exists()
    assert not (tmp_path / "cache").exists()
    without = run("edit", world.model, "-f", world.facts)
    assert without.exit_code == 2
    assert "--output" in without.stderr


@pytest.mark.parametrize("method", ["pmet", "two_site", "alphaedit"])
def test_a_plan_says_what_its_weights_amount_to(moments: Moments, method: str) -> None:
    """With fixed contexts and one layer per site, the same as the edit then records."""
    model = tiny_model("gpt2")
    folder = moments(model)
    own = {**CASES[method].given(model), **({} if method == "two_site" else {"layers": [1]})}
    request = EditRequest(TOGETHER, method, own, contexts=CONTEXTS, covariance=folder)
    plan = prepare(model, request)
    expected, edit = plan.realized(), plan.run()
    assert expected.keys() == edit.realized.keys() == edit.deltas.keys()
    first = next(iter(expected))
    assert expected[first].share == pytest.approx(edit.realized[first].share, rel=1e-3)
    assert prepare(model, EditRequest(TOGETHER, "memit")).realized() == {}


def test_a_share_is_kept_with_the_edit_and_shown(tmp_path: Path, moments: Moments) -> None:
    world = the_world()
    folder, output = moments(errata.load(world.model)), tmp_path / "edit"
    words = ["edit", world.model, "-f", world.facts, "--covariance", folder, "--set", "values.steps=3"]
    words += ["--method", "pmet", "--set", "layers=1-2", "--set", "solve.realised_share=0.6"]
    planned = run(*words, "--plan", "--json")
    assert planned.exit_code == 0, planned.output
    realized = json.loads(planned.stdout)["realized"].values()
    assert [one["share"] for one in realized] == [pytest.approx(0.6)] * 2
    done = run(*words, "--output", output)
    assert done.exit_code == 0, done.output
    assert "One write realized 0.60 of the median fact's change" in " ".join(done.stdout.split())
    kept = errata.load_edit(output)
    assert [one.share for one in kept.realized.values()] == [pytest.approx(0.6)] * 2
    assert kept.origin.settings["solve.covariance_weight"] is None
