"""Kept values: found again for the very same question, never for another one, and never when damaged."""

import errno
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from errata.facts.fact import Fact
from errata.methods.base import SiteSettings
from errata.methods.registry import METHODS
from errata.models.model import EditableModel
from errata.settings.method_presets import load_presets
from errata.settings.schema import build
from errata.values import targets
from errata.values.descent import Outcome, Place, Trace
from errata.values.store import TargetStore
from errata.values.targets import optimize_targets
from families import CONTEXTS, FACTS, SETTINGS, tiny_model


def settings_of(method: str = "pmet", **values: object) -> SiteSettings:
    return build(SiteSettings, load_presets(method).defaults, SETTINGS, values)


def store_in(
    folder: Path,
    model: EditableModel | None = None,
    contexts: Sequence[str] = CONTEXTS,
    relax: bool = True,
    method: str = "pmet",
    **values: object,
) -> TargetStore:
    model = tiny_model("gpt2") if model is None else model
    return TargetStore.of(folder, model, contexts, settings_of(method, **values), relax)


def outcome(seed: int, loss: float = 1.0, places: Sequence[Place] = ("attention", "ffn")) -> Outcome:
    generator = torch.Generator().manual_seed(seed)
    initial = {place: torch.randn(32, generator=generator) for place in places}
    delta = {place: torch.randn(32, generator=generator) for place in places}
    trace = Trace(
        loss=[2.0, loss], nll=[1.9, loss], kl=[0.0, 0.1], decay=[0.0, 1e-300], nll_factor=[1.0, 0.1]
    )
    trace.nll_each, trace.stop = [[1.0, 2.0], [0.5, loss]], "loss" if math.isfinite(loss) else "not finite"
    return Outcome(initial, delta, trace)


def assert_same(mine: Outcome, theirs: Outcome) -> None:
    for one, other in ((mine.initial, theirs.initial), (mine.delta, theirs.delta)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[place], other[place]) for place in one)
    assert repr(mine.trace) == repr(theirs.trace)


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    outcomes = [outcome(1), outcome(2, loss=math.nan)]
    assert store_in(tmp_path).load(FACTS[:2]) is None
    store_in(tmp_path).save(FACTS[:2], outcomes)
    found = store_in(tmp_path).load(FACTS[:2])
    assert found is not None
    for mine, theirs in zip(found, outcomes, strict=True):
        assert_same(mine, theirs)
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".safetensors"


def test_deltas_of_every_pass_are_not_kept(tmp_path: Path) -> None:
    one = outcome(1)
    one.trace.deltas.append(one.delta)
    store_in(tmp_path).save(FACTS[:1], [one])
    found = store_in(tmp_path).load(FACTS[:1])
    assert found is not None
    assert found[0].trace.deltas == []
    assert len(one.trace.deltas) == 1


@pytest.mark.parametrize(
    ("facts", "values"),
    [
        (FACTS[:1], {}),
        (FACTS[1::-1], {}),
        ((FACTS[0], replace(FACTS[1], target_new="harp")), {}),
        ((FACTS[0], replace(FACTS[1], subject="Hale Corvin")), {}),
        ((FACTS[0], replace(FACTS[1], prompt="{} plays a")), {}),
        (FACTS[:2], {"contexts": CONTEXTS[:2]}),
        (FACTS[:2], {"relax": False}),
        (FACTS[:2], {"layers": [1, 3]}),
        (FACTS[:2], {"values.steps": 5}),
        (FACTS[:2], {"values.learning_rate": 0.1}),
        (FACTS[:2], {"values.clamp": 1.0}),
        (FACTS[:2], {"values.decay": 0.1}),
        (FACTS[:2], {"values.kl_weight": 0.1}),
        (FACTS[:2], {"values.nll_weight": 2.0}),
        (FACTS[:2], {"values.kl_position": "end"}),
        (FACTS[:2], {"values.optimize": ["ffn"]}),
    ],
)
def test_another_question_has_no_answer_yet(
    tmp_path: Path, facts: tuple[Fact, ...], values: dict[str, object]
) -> None:
    store_in(tmp_path).save(FACTS[:2], [outcome(1), outcome(2)])
    assert store_in(tmp_path, **values).load(facts) is None


@pytest.mark.parametrize(("family", "dtype"), [("llama", "float32"), ("gpt2", "float64")])
def test_nor_has_another_model(tmp_path: Path, family: str, dtype: str) -> None:
    store_in(tmp_path).save(FACTS[:2], [outcome(1), outcome(2)])
    assert store_in(tmp_path, tiny_model(family, dtype)).load(FACTS[:2]) is None


@pytest.mark.parametrize(
    "values",
    [
        {"solve.covariance_weight": 1.0},
        {"spread.share": "even"},
        {"spread.write": ["attention", "ffn"]},
        {"keys.average": "plain"},
        {"layers": [0, 2]},
    ],
)
def test_the_spread_does_not_change_the_values(tmp_path: Path, values: dict[str, object]) -> None:
    store_in(tmp_path).save(FACTS[:2], [outcome(1), outcome(2)])
    assert store_in(tmp_path, **values).load(FACTS[:2]) is not None


def test_nor_does_what_a_fact_is_measured_by(tmp_path: Path) -> None:
    store_in(tmp_path).save(FACTS[:1], [outcome(1)])
    known = replace(FACTS[0], target_true=None, paraphrase_prompts=("{} is governed from",), case_id=3)
    assert store_in(tmp_path).load([known]) is not None


def rewrite(file: Path, drop: str = "", **header: str) -> None:
    tensors = {name: part for name, part in load_file(file).items() if name != drop}
    with safe_open(file, framework="pt") as opened:
        words = {**opened.metadata(), **header}
    save_file(tensors, file, metadata={name: text for name, text in words.items() if text})


@pytest.mark.parametrize(
    "flaw", ["cut off", "empty", "no traces", "no JSON", "one fact less", "a place less", "foreign"]
)
def test_a_damaged_file_counts_as_nothing(tmp_path: Path, flaw: str) -> None:
    store = store_in(tmp_path)
    store.save(FACTS[:2], [outcome(1), outcome(2)])
    (file,) = tmp_path.iterdir()
    if flaw in ("cut off", "empty"):
        file.write_bytes(file.read_bytes()[: 300 if flaw == "cut off" else 0])
    elif flaw == "a place less":
        rewrite(file, drop="delta.ffn")
    else:
        with safe_open(file, framework="pt") as opened:
            traces = json.loads(opened.metadata()["traces"])
        foreign = [{**trace, "unheard of": 1} for trace in traces]
        texts = {"no traces": "", "no JSON": "[{", "one fact less": json.dumps(traces[:1])}
        rewrite(file, traces=texts.get(flaw, json.dumps(foreign)))
    assert store.load(FACTS[:2]) is None
    store.save(FACTS[:2], [outcome(3), outcome(4)])
    found = store.load(FACTS[:2])
    assert found is not None
    assert_same(found[1], outcome(4))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(tensors: object, path: Path, metadata: object = None) -> None:
        Path(path).write_bytes(b"the first half")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        store_in(tmp_path).save(FACTS[:1], [outcome(1)])
    assert f"cannot be kept in {tmp_path}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = tiny_model("llama"), settings_of(**{"values.steps": 2})
    store = TargetStore.of(tmp_path, model, CONTEXTS, settings, relax=True)
    first = optimize_targets(model, FACTS, CONTEXTS, settings, relax=True, keeper=store)

    def never(*_: object) -> list[Outcome]:
        raise AssertionError("these values were kept")

    monkeypatch.setattr(targets, "optimize_batch", never)
    told: list[tuple[str, int, int]] = []
    again = optimize_targets(
        model,
        FACTS,
        CONTEXTS,
        settings,
        relax=True,
        keeper=TargetStore.of(tmp_path, model, CONTEXTS, settings, relax=True),
        on_progress=lambda *words: told.append(words),
    )
    assert told[-1] == ("optimization", len(FACTS), len(FACTS))  # with several threads, batch by batch
    assert all(torch.equal(again.value(place), first.value(place)) for place in first.initial)
    assert again.traces == first.traces


RECIPES = {
    "pmet": "2a68654272f680fecd6d993a7dc729d1",
    "memit": "000448e9ed613ade16f9af2bde96cb23",
    "alphaedit": "000448e9ed613ade16f9af2bde96cb23",
    "rome": "e90e6c5dd64ce8295ff5d9334e3cafe9",
    "early": "0d2803e5bac24039bc7a5815151aa235",
    "late": "032e1d6c33ae5e5ea492e8745ab5d2de",
}
"""Digests of Almanac's presets as the version with flat settings computed them; the two last are two_site's."""


@pytest.mark.parametrize("name", RECIPES)
def test_values_of_the_version_with_flat_settings_are_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EditableModel, "measure_fingerprint", lambda _: "0" * 64)
    method = name if name in METHODS else "two_site"
    settings = build(METHODS[method].settings, load_presets(method).for_model("almanac", 10).values)
    site = METHODS[method].sites(settings)[name == "late"]
    store = TargetStore.of(tmp_path, tiny_model("gpt2"), ("", "I think."), site, relax=name == "pmet")
    assert store.recipe == RECIPES[name]
