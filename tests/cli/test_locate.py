"""`errata locate`: the folder with numbers, figures, page and preset; killed and resumed; what cannot be done."""

import json
from pathlib import Path

import pytest

from cli_world import answer, failed, flat, run
from errata.analysis import locating
from errata.analysis.effects import effects_from_json
from errata.facts.fact import Fact
from errata.facts.reading import write_facts
from errata.settings.method_presets import load_presets
from families import FACTS
from tiny import SAYS, parrot


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("parrot")
    made = parrot()
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    known = [Fact("{} <b>plays</b> $1 the", name, "harp", SAYS) for name in ("Orin Vasker", "Mira & Co")]
    write_facts(tmp_path / "facts.jsonl", [*known, FACTS[0]])
    return tmp_path / "facts.jsonl"


def test_the_folder_has_numbers_figures_a_page_and_a_preset(model: str, facts: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    out = tmp_path / "located"
    told = answer(
        "locate", model, "--facts", facts, "--output", out, "--noise-samples", "2", "--figures", "1"
    )
    kept = json.loads((out / "results.json").read_text())
    assert {**kept, "output": str(out)} == told
    assert (kept["facts"], len(kept["left_out"]), kept["noise_samples"]) == (2, 1, 2)
    assert set(kept["average_indirect_effect"]) == {"state", "ffn", "attention"}
    one = effects_from_json(json.loads((out / "facts" / "001.json").read_text()))
    assert one.subject == "Orin Vasker"
    names = {path.name for path in (out / "figures").iterdir()}
    assert names == {
        f"{name}.{kind}" for name in ("average", "curves", "fact-001") for kind in ("svg", "png")
    }
    page = (out / "index.html").read_text()
    assert "Mira &amp; Co" not in page  # the second fact has no figure
    assert "Orin Vasker &lt;b&gt;plays&lt;/b&gt; $1 the" in page
    assert "1 more facts" in page
    assert 'src="http' not in page
    preset = load_presets("pmet").for_model(model, 4, str(out / "critical-layers.toml"))
    assert preset.values["layers"] == "-".join(str(kept["critical_layers"][at]) for at in (0, -1))
    assert load_presets("rome").for_model(model, 4, str(out / "critical-layers.toml")).values[
        "layers"
    ] == str(kept["critical_layer"])


def test_without_an_output_the_table_is_all(model: str, facts: Path) -> None:
    done = run("locate", model, "--facts", facts, "--noise-samples", "1", "--window", "2")
    assert done.exit_code == 0, done.output
    assert "2 facts traced, 1 left out" in flat(done.stdout)
    assert "Critical layers:" in done.stdout


def test_stopped_and_started_again_it_goes_on(
    model: str, facts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locating, "FACTS_AT_ONCE", 1)
    words = ("locate", model, "--facts", facts, "--noise-samples", "2")
    whole = answer(*words)
    files = sorted((cache / "traces").iterdir())
    assert len(files) == 2
    files[0].unlink()
    once = locating.restore_everywhere
    calls: list[int] = []

    def stopped(*given: object) -> object:
        raise KeyboardInterrupt

    def counted(*given: object) -> object:
        calls.append(1)
        return once(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(locating, "restore_everywhere", stopped)
    assert "goes on from there" in failed(*words, code=130)
    monkeypatch.setattr(locating, "restore_everywhere", counted)
    assert answer(*words) == whole
    assert calls == [1]


def test_what_cannot_be_is_told(model: str, facts: Path, tmp_path: Path) -> None:
    write_facts(tmp_path / "unknown.jsonl", [FACTS[0]])
    assert "knows none of the 1 facts" in failed("locate", model, "--facts", tmp_path / "unknown.jsonl")
    assert "exists already" in failed("locate", model, "--facts", facts, "--output", facts)
    assert "noise is 0.0" in failed("locate", model, "--facts", facts, "--noise", "0")


def test_without_the_extra_it_says_so_at_once(
    model: str, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from errata.analysis import locating_folder

    monkeypatch.setattr(locating_folder, "EXTRA", ("no_such_package",))
    message = failed("locate", model, "--facts", facts, "--output", tmp_path / "out")
    assert "need no_such_package: pip install 'errata[report]'" in message
