"""Files that earlier versions wrote (tests/fixtures/old-formats): loaded, and they mean what they meant."""

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import errata
from errata.analysis import locate, summary
from errata.edits import open_stack
from errata.errors import UnknownSetting
from errata.methods import method_named
from errata.models import EditableModel
from errata.moments import Factors, moments_of, read_moment
from errata.results import load_results
from errata.runtime import to_json
from errata.settings import build, load_presets
from tolerances import DEPTH, FORWARD, KEYS, assert_agree, tolerance

HERE = Path(__file__).parent / "fixtures" / "old-formats"
EDITS = {
    "pmet": ("pmet", 4),
    "two_site": ("two_site", 2),
    "finetune": ("finetune", 2),
    "mend": ("mend", 1),
    "iterated": ("memit", 2),
}
"""The method and the number of facts of each edit."""
PMET: dict[str, object] = {
    "layers": [1, 2],
    "values.steps": 4,
    "values.learning_rate": 0.2,
    "values.clamp": 0.75,
    "values.kl_weight": 0.5,
    "solve.covariance_weight": 20.0,
}
CONTEXTS = ("", "The quiet river.", "Because it rained all day.", "I think.")


@cache
def old_model() -> EditableModel:
    return errata.load(HERE / "model", dtype="float32")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may change, whose cache is the user's."""
    folder = tmp_path / "old"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("model"))
    monkeypatch.setenv("ERRATA_CACHE", str(folder / "cache"))
    return folder


def assert_same(mine: object, theirs: object) -> None:
    """Raise unless two values of JSON are the same, numbers up to rounding in float32."""
    if isinstance(theirs, dict):
        assert isinstance(mine, dict)
        assert mine.keys() == theirs.keys()
        for name in theirs:
            assert_same(mine[name], theirs[name])
    elif isinstance(theirs, list):
        assert isinstance(mine, list)
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(theirs, float):
        assert mine == pytest.approx(
            theirs, rel=0, abs=tolerance(torch.float32, FORWARD, DEPTH, 1 + abs(theirs))
        )
    else:
        assert mine == theirs


def scores_of(results: errata.Results, phase: str) -> dict[str, object]:
    return to_json(results.scores(phase))


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def check_weights(name: str, applied: AbstractContextManager[EditableModel]) -> None:
    """Raise unless the edit changes the weights that it changed, to what it made of them, and takes it all back."""
    model = old_model()
    recorded = load_file(HERE / "weights.safetensors")
    wanted = {
        path.removeprefix(f"{name}/"): weight
        for path, weight in recorded.items()
        if path.startswith(f"{name}/")
    }
    before = weights_of(model)
    with applied:
        after = weights_of(model)
    assert {path for path in after if not torch.equal(after[path], before[path])} == set(wanted)
    for path, weight in wanted.items():
        assert_agree(after[path], weight, terms=1)
    assert all(torch.equal(weight, before[path]) for path, weight in weights_of(model).items())


def weights_of(model: EditableModel) -> Mapping[str, Tensor]:
    return {path: weight.detach().clone() for path, weight in model.model.named_parameters()}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_the_same_weights(name: str) -> None:
    edit = errata.load_edit(HERE / name)
    method, facts = EDITS[name]
    assert (edit.origin.method, len(edit.facts), edit.dropped) == (method, facts, ())
    assert edit.facts == tuple(errata.read_facts(HERE / "facts.jsonl"))[:facts]
    check_weights(name, edit.applied(old_model()))


def test_an_edit_says_how_it_was_made() -> None:
    origin = errata.load_edit(HERE / "pmet").origin
    assert (origin.seed, origin.contexts, origin.model) == (3, CONTEXTS, "model")
    recorded = json.loads((HERE / "pmet" / "edit.json").read_text())
    assert json.loads(json.dumps(origin.settings)) == recorded["settings"]
    iterated = errata.load_edit(HERE / "iterated")
    assert iterated.origin.strategy["iterations"] == 2
    (write,) = iterated.history  # the second iteration lacked a reason: the first did not move the facts
    assert (write["facts"], write["underedited"], write["kept"]) == (2, 2, True)


def test_a_stack_changes_the_same_weights() -> None:
    stack = open_stack(HERE / "stack")
    assert stack.names == ("first", "second")
    assert stack.leaning_on("first") == ("second",)
    check_weights("stack", stack.applied(old_model()))


def test_second_moments_are_read() -> None:
    model = old_model()
    assert [stored.site for stored in moments_of(HERE / "covariance")] == [
        model.site("ffn", layer).path for layer in (1, 2)
    ]
    for layer in (1, 2):
        site = model.site("ffn", layer)
        recorded = load_file(HERE / "covariance" / f"{site.path}.safetensors")["second_moment"]
        assert torch.equal(read_moment(HERE / "covariance", model, site).float(), recorded)


def test_a_factor_is_not_computed_again(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def computed(*_: object) -> object:
        raise AssertionError

    monkeypatch.setattr(torch.linalg, "cholesky_ex", computed)
    site = old_model().site("ffn", 1)
    (recorded,) = (HERE / "cache" / "factors").iterdir()
    lower = Factors(old / "covariance", old_model()).lower(site, 0.0)
    assert lower is not None
    assert torch.equal(lower.T, load_file(recorded)["upper"])


def test_finished_values_are_found_and_make_the_same_edit(old: Path) -> None:
    before = names_in(old / "values")
    facts = errata.read_facts(HERE / "facts.jsonl")
    edit = errata.edit(
        old_model(),
        facts,
        "pmet",
        PMET,
        contexts=CONTEXTS,
        covariance=old / "covariance",
        seed=3,
        keep_in=old / "values",
    )
    assert names_in(old / "values") == before
    recorded = errata.load_edit(HERE / "pmet")
    assert edit.deltas.keys() == recorded.deltas.keys()
    for path, delta in edit.deltas.items():
        assert_agree(delta.matrix, recorded.deltas[path].matrix, FORWARD, KEYS, dtype=torch.float32)


def test_an_editor_makes_the_same_edit() -> None:
    facts = errata.read_facts(HERE / "facts.jsonl")[:1]
    settings = {"editor": str(HERE / "editor"), "layers": [2]}
    edit = errata.edit(old_model(), facts, "mend", settings)
    recorded = errata.load_edit(HERE / "mend")
    assert edit.deltas.keys() == recorded.deltas.keys()
    for path, delta in edit.deltas.items():
        assert_agree(delta.matrix, recorded.deltas[path].matrix, FORWARD, KEYS, dtype=torch.float32)


def test_results_give_the_same_scores() -> None:
    recorded = json.loads((HERE / "results" / "scores.json").read_text())
    results = load_results(HERE / "results")
    assert len(results.records) == recorded["records"]
    for phase in ("before", "after"):
        assert_same(scores_of(results, phase), recorded[phase])


def test_an_edit_is_evaluated_as_before() -> None:
    edit = errata.load_edit(HERE / "pmet")
    results = errata.evaluate(old_model(), errata.read_facts(HERE / "facts.jsonl"), edit=edit)
    recorded = load_results(HERE / "results")
    for phase in ("before", "after"):
        assert_same(scores_of(results, phase), scores_of(recorded, phase))


def test_finished_traces_are_found_and_give_the_same_numbers(old: Path) -> None:
    before = names_in(old / "traces")
    located = locate(old_model(), errata.read_facts(HERE / "known.jsonl"), 2, keep_in=old / "traces")
    assert names_in(old / "traces") == before
    recorded = json.loads((HERE / "located" / "results.json").read_text())
    assert_same(summary(located), {**recorded, "model": str(HERE / "model")})


def test_located_layers_are_a_preset() -> None:
    file = str(HERE / "located" / "critical-layers.toml")
    assert load_presets("pmet").for_model("model", 4, file).values["layers"] == "0-1"
    assert load_presets("rome").for_model("model", 4, file).values["layers"] == "0"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "pmet",
            "Setting 'steps' is now 'values.steps'. Setting 'optimise' is now 'values.optimize'. "
            "Setting 'kl_weight' is now 'values.kl_weight'. "
            "Setting 'covariance_weight' is now 'solve.covariance_weight'.",
        ),
        ("two_site", "Setting 'layers' is now 'early.layers'. Setting 'steps' is now 'early.values.steps'."),
        (
            "two_site",
            "Setting 'late_layers' is now 'late.layers'. Setting 'late_steps' is now 'late.values.steps'.",
        ),
    ],
)
def test_a_preset_of_the_user_is_refused_with_the_names_as_they_are_now(method: str, message: str) -> None:
    preset = load_presets(method).for_model("model", 4, str(HERE / "preset.toml"))
    assert preset.source == "traced"
    with pytest.raises(UnknownSetting) as caught:
        build(method_named(method).settings, preset.values)
    assert message in str(caught.value)
