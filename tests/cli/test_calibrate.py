"""`errata calibrate`: a report, a preset that the next edit uses, and what cannot be done."""

from pathlib import Path

import pytest

from cli_world import answer, failed, flat, run
from errata.cli.calibrate import seconds_of
from errata.errors import SettingsError
from errata.facts.fact import Fact
from errata.facts.reading import write_facts
from errata.moments.collection import collect
from families import SENTENCES
from moments_cases import TEXTS
from tiny import SAYS, parrot

pytest.importorskip("optuna")
pytest.importorskip("matplotlib")

FACTS = [
    Fact(prompt, name, target, SAYS, relation_id=prompt)
    for name, target in (("Orin", "harp"), ("Mira", "boat"), ("Hale", "harp"), ("Anna", "boat"))
    for prompt in ("{} plays", "{} lives in", "A friend of {} is")
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its second moments, and facts that it knows."""
    folder = tmp_path_factory.mktemp("parrot")
    made = parrot()
    made.model.save_pretrained(folder / "polly")
    made.tokenizer.save_pretrained(folder / "polly")
    sites = [made.site("ffn", layer) for layer in range(made.layers)]
    collect(made, sites, TEXTS, folder=folder / "moments", corpus="sentences", samples=len(TEXTS))
    write_facts(folder / "facts.jsonl", FACTS)
    return folder


@pytest.fixture(autouse=True)
def short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model reads 96 tokens."""
    monkeypatch.setattr("errata.calibrate.running.plain_texts", lambda: SENTENCES[:3])


def words(place: Path, *more: str | Path) -> list[str | Path]:
    known = ["--facts", place / "facts.jsonl", "--covariance", place / "moments"]
    few = ["--development", "2", "--held-out", "2", "--trials", "1", "--set", "values.steps=3"]
    return ["calibrate", place / "polly", "--method", "memit", *known, *few, *more]


def test_the_report_is_written_and_told(place: Path, tmp_path: Path, cache: Path) -> None:
    told = answer(*words(place, "--output", tmp_path / "out"))
    assert (told["method"], told["development_facts"], told["held_out_facts"]) == ("memit", 2, 2)
    assert (tmp_path / "out" / "trade-off.svg").is_file()
    assert (told["preset"] is not None) is told["held_out"]["improves"]  # type: ignore[index]
    assert (cache / "presets").exists() is told["held_out"]["improves"]  # type: ignore[index]


def test_a_better_preset_is_installed_and_the_next_edit_uses_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from errata.calibrate.request import HeldOut

    monkeypatch.setattr(HeldOut, "improves", True)
    done = run(*words(place))
    assert done.exit_code == 0, done.output
    assert "is used from now on" in flat(done.stdout)
    plan = run("edit", place / "polly", "--facts", place / "facts.jsonl", "--method", "memit", "--plan")
    assert "calibrated on 20" in flat(plan.stdout)
    assert "with 2 facts" in flat(plan.stdout)
    named = ("--preset", "default", "--plan")
    plan = run("edit", place / "polly", "--facts", place / "facts.jsonl", "--method", "memit", *named)
    assert "calibrated" not in plan.stdout


def test_what_is_stopped_says_that_it_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("errata.calibrate.running._Calibration._trial", stop)
    done = run(*words(place))
    assert done.exit_code == 130
    assert "the same command goes on" in flat(done.stderr)


def test_a_method_without_values_and_an_output_that_exists_are_refused(place: Path, tmp_path: Path) -> None:
    assert "optimizes no values" in failed("calibrate", place / "polly", "--method", "finetune")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    assert "exists already" in failed(*words(place, "--output", tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("10m", 600.0), ("1.5h", 5400.0), ("45", 45.0), ("none", None)]
)
def test_budgets_are_read(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "ten", "5 minutes", "-3s"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is no time"):
        seconds_of(text)
