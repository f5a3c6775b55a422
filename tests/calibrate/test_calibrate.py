"""A calibration on a tiny model: within its budget, the same after a kill, seeded, and found by itself afterwards."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import errata
from errata.calibrate import calibrate, install_preset, write_report
from errata.calibrate import running as running_module
from errata.calibrate.journal import Clock, Journal
from errata.calibrate.presets import calibrated_text
from errata.calibrate.request import Calibration, CalibrationRequest, Trial
from errata.errors import FactError, SettingsError
from errata.facts.fact import Fact
from errata.models.model import EditableModel
from errata.moments.collection import collect
from errata.settings import DEFAULT
from families import SENTENCES
from moments_cases import TEXTS
from tiny import SAYS, parrot

optuna = pytest.importorskip("optuna")

PEOPLE = ("Orin Vasker", "Mira", "Hale Corvin", "Anna", "Teodor", "Ilse", "Bram", "Nadia")
RELATIONS = {
    "instrument": "{} plays",
    "town": "{} lives in",
    "friend": "A friend of {} is",
    "work": "{} sells",
}
FACTS = [
    Fact(
        prompt,
        name,
        ("harp", "Kestrel")[number % 2],
        SAYS,
        paraphrase_prompts=(f"It is known that {prompt}",),
        relation_id=relation,
    )
    for number, name in enumerate(PEOPLE)
    for relation, prompt in RELATIONS.items()
]
QUICK: Mapping[str, object] = {"values.steps": 3, "values.nll_weight": 1.0}


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return parrot()


@pytest.fixture(scope="module")
def moments(model: EditableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moments")
    sites = [model.site("ffn", layer) for layer in range(model.layers)]
    collect(model, sites, TEXTS, folder=folder, corpus="sentences", samples=len(TEXTS))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def request_(moments: Path) -> CalibrationRequest:
    return CalibrationRequest(
        "memit",
        FACTS,
        QUICK,
        development=3,
        held_out=3,
        budget=None,
        trials=4,
        covariance=moments,
        texts=SENTENCES[:3],
    )


@pytest.fixture(scope="module")
def whole(
    model: EditableModel, request_: CalibrationRequest, tmp_path_factory: pytest.TempPathFactory
) -> Calibration:
    """A calibration that nothing has stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERRATA_CACHE", str(tmp_path_factory.mktemp("whole")))
        return calibrate(model, request_)


def outcome(found: Calibration) -> tuple[Any, ...]:
    """All that must be the same, times left out."""
    trials = [replace(trial, seconds=0.0) for trial in found.trials]
    return trials, found.values, found.held_out


def test_every_stage_has_a_trial_and_the_best_one_wins_and_the_same_seed_finds_the_same(
    model: EditableModel, request_: CalibrationRequest, whole: Calibration, tmp_path: Path
) -> None:
    before = model.measure_fingerprint()
    told: list[int] = []
    found = calibrate(model, request_, on_trial=lambda trial, best: told.append(best))
    assert model.measure_fingerprint() == before
    assert [trial.stage for trial in found.trials] == ["as it comes", "strength", "layers", "values", "write"]
    assert found.best.score == max(trial.score for trial in found.trials)
    assert (len(told), told[-1]) == (5, found.best.number)
    assert (found.counts, found.ended, found.values["values.steps"]) == ((3, 3), "trials", 3)
    assert outcome(found) == outcome(whole)
    assert not (tmp_path / "cache" / "presets").exists()  # nothing is installed by itself


def test_another_seed_asks_other_facts(
    model: EditableModel, request_: CalibrationRequest, whole: Calibration
) -> None:
    other = calibrate(model, replace(request_, seed=1, trials=1))
    assert other.unedited != whole.unedited or other.trials[0].measures != whole.trials[0].measures


@pytest.mark.parametrize("killed_in", [1, 5])
def test_killed_at_any_moment_it_goes_on_to_the_same_preset(
    killed_in: int,
    model: EditableModel,
    request_: CalibrationRequest,
    whole: Calibration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: Any = running_module._Calibration._measured
    calls: list[int] = []

    def kill(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == killed_in + 1:
            raise KeyboardInterrupt
        return measured(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(running_module._Calibration, "_measured", kill)
        with pytest.raises(KeyboardInterrupt):
            calibrate(model, request_)
    calls.clear()
    count = len(whole.trials) + 2
    with monkeypatch.context() as patch:
        patch.setattr(running_module._Calibration, "_measured", lambda *a: (calls.append(1), measured(*a))[1])
        resumed = calibrate(model, request_)
    assert outcome(resumed) == outcome(whole)
    assert calibrated_text(resumed) == calibrated_text(whole)
    assert len(calls) <= count - killed_in  # what was finished is not made again


def test_the_budget_ends_the_search_with_the_best_so_far(
    model: EditableModel, request_: CalibrationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every look at the clock takes a second here, and nothing else takes any time."""

    def tick(clock: Clock) -> float:
        clock.used += 1
        clock.file.write_text(json.dumps({"seconds": clock.used}))
        return clock.used

    monkeypatch.setattr(Clock, "tick", tick)
    monkeypatch.setattr(running_module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    found = calibrate(model, replace(request_, trials=None, budget=200.0))
    assert found.ended == "budget"
    assert 2 <= len(found.trials) < 20
    assert found.best.score == max(trial.score for trial in found.trials)
    again = calibrate(model, replace(request_, trials=None, budget=200.0))  # the time of both runs counts
    assert outcome(again) == outcome(found)
    more = calibrate(model, replace(request_, trials=None, budget=400.0))
    assert more.trials[: len(found.trials)] == found.trials
    assert len(more.trials) > len(found.trials)


def test_the_preset_is_found_by_itself_next_time_and_for_these_weights_only(
    model: EditableModel, whole: Calibration, caplog: pytest.LogCaptureFixture
) -> None:
    found = replace(whole, values={**whole.values, "layers": "1-2", "values.clamp": 1.25})
    install_preset(found)

    def plan(preset: str | None = None) -> errata.Plan:
        return errata.prepare(model, errata.EditRequest(FACTS[:1], "memit", preset=preset))

    with caplog.at_level(logging.WARNING):
        own = plan()
    assert not caplog.records
    rows = {row.name: row for row in own.setting_rows()}
    assert (rows["layers"].value, rows["values.clamp"].value) == ((1, 2), 1.25)
    assert rows["values.clamp"].source == "preset calibrated"
    assert own.preset.source.startswith(f"calibrated on {found.created} with 3 facts")
    assert plan(DEFAULT).preset.name == "rule"

    other = parrot()
    site = other.site("ffn", 0)
    with other.ledger.temporary():
        other.ledger.write(site, 1.5 * site.weight.detach())
        assert errata.prepare(other, errata.EditRequest(FACTS[:1], "memit")).preset.name == "calibrated"
    with caplog.at_level(logging.WARNING):
        stranger = parrot()
        stranger.model.get_submodule(site.path).weight.data.mul_(1.5)
        assert errata.prepare(stranger, errata.EditRequest(FACTS[:1], "memit")).preset.name == "rule"
    assert "other weights" in caplog.text


def test_the_report_has_all_numbers_and_a_picture(whole: Calibration, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found, out = whole, write_report(whole, tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {
        "report.md",
        "calibration.json",
        "preset.toml",
        "trade-off.svg",
        "trade-off.png",
    }
    numbers = json.loads((out / "calibration.json").read_text())
    assert (len(numbers["trials"]), numbers["held_out"]["improves"]) == (5, found.held_out.improves)
    page = (out / "report.md").read_text()
    for words in (
        "## Held-out facts",
        "as it comes (rule)",
        "values.learning_rate_scale=0.072",
        "trade-off.svg",
    ):
        assert words in page


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(
    model: EditableModel, request_: CalibrationRequest, moments: Path, tmp_path: Path
) -> None:
    some = tmp_path / "moments"
    some.mkdir()
    for layer in (1, 2):
        name = f"{model.site('ffn', layer).path}.safetensors"
        (some / name).write_bytes((moments / name).read_bytes())
    found = calibrate(model, replace(request_, covariance=some))
    failed = [trial for trial in found.trials if trial.error]
    assert failed
    assert all(trial.measures is None and trial.score < -1000 for trial in failed)
    assert not found.best.error


@pytest.mark.parametrize("method", ["finetune", "mend"])
def test_methods_without_values_are_refused(method: str) -> None:
    with pytest.raises(SettingsError, match="optimizes no values"):
        CalibrationRequest(method)


def test_a_model_that_knows_too_little_is_refused(model: EditableModel, request_: CalibrationRequest) -> None:
    strange = [replace(fact, target_true="mandolin") for fact in FACTS]
    with pytest.raises(FactError, match="knows 0 of"):
        calibrate(model, replace(request_, facts=strange))


def test_a_line_of_the_journal_that_was_cut_off_is_made_again(whole: Calibration) -> None:
    journal, trials = Journal.of("some"), list[Trial]()
    for trial in whole.trials:
        journal.add(trials, trial)
    assert journal.trials() == list(whole.trials)
    file = journal.folder / "trials.jsonl"
    file.write_text(file.read_text()[:-40])
    assert journal.trials() == list(whole.trials[:-1])
