"""What `errata.edit` refuses, before anything is computed; and a model that no preset knows."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from errata import errors
from errata.facts.fact import Fact
from errata.methods.registry import METHODS
from errata.planning.plan import edit
from errata.settings.layer_rules import LAYER_RULES
from errata.settings.method_presets import load_presets
from errata.settings.schema import build, flatten
from errata.values import targets
from families import CONTEXTS, FACTS, SETTINGS, tiny_model
from method_cases import CASES, Refusal
from moments_cases import Moments
from registry_cases import assert_untouched, weights_of


@pytest.fixture
def no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals come before hours are spent on values."""

    def never(*_: object) -> list[object]:
        raise AssertionError("the Optimization stage was begun")

    monkeypatch.setattr(targets, "optimize_batch", never)
    monkeypatch.setattr("errata.methods.finetune._Training.run", never)


def nowhere(method: str) -> Refusal:
    return (
        {CASES[method].layers: [9]},
        errors.LayerOutOfRange,
        "names block 9, but tiny-gpt2 has blocks 0 to 3",
    )


@pytest.mark.usefixtures("no_values")
@pytest.mark.parametrize(
    ("method", "refusal"),
    [(name, refusal) for name, case in CASES.items() for refusal in (nowhere(name), *case.refused)],
    ids=lambda word: str(word if isinstance(word, str) else word[0]),
)
def test_settings_that_are_refused(method: str, refusal: Refusal, moments: Moments) -> None:
    given, error, message = refusal
    model = tiny_model("gpt2")
    with pytest.raises(error) as caught:
        edit(
            model,
            FACTS,
            method,
            {**CASES[method].given(model), **given},
            contexts=CONTEXTS,
            covariance=moments(model),
        )
    assert message in str(caught.value)


@pytest.mark.usefixtures("no_values")
def test_unknown_methods_and_presets() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(
        errors.UnknownSetting, match=r"no method 'pmt'\. Did you mean 'pmet'\? Known methods: p"
    ):
        edit(model, FACTS, "pmt")
    with pytest.raises(errors.UnknownSetting, match=r"no pmet preset 'gptj'.* Known: .*gpt-j-counterfact"):
        edit(model, FACTS, "pmet", preset="gptj")


@pytest.mark.usefixtures("no_values")
@pytest.mark.parametrize("method", METHODS)
def test_facts_that_are_refused(method: str, moments: Moments, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")

    def refused(*facts: Fact) -> str:
        with pytest.raises(errors.FactError) as caught:
            edit(model, facts, method, CASES[method].given(model), contexts=CONTEXTS)
        return str(caught.value)

    def never(*_: object) -> Path:
        raise AssertionError("second moments were measured")

    monkeypatch.setattr("errata.planning.plan.ensure", never)
    assert "There are no facts to write" in refused()
    message = refused(*FACTS, replace(FACTS[1], target_new="harp"))
    assert "Two facts contradict each other: 'Orin Vasker plays the' has conflicting targets: " in message
    assert f"'violin' (fact 2) and 'harp' (fact {len(FACTS) + 1})" in message
    long = Fact("It rained. " * 40 + "{} plays the", "Mira Tolland", "harp")
    message = refused(*FACTS, long)
    assert "Subject 'Mira Tolland'" in message
    assert "more than the context of tiny-gpt2 (96)" in message


@pytest.mark.usefixtures("no_values")
@pytest.mark.parametrize(
    ("contexts", "message"),
    [
        ([], 'first context must be the empty text ""'),
        (["I think."], 'first context must be the empty text ""'),
        (["", "  "], "Context 1 is empty"),
        (["", "I think.", "I think."], "Context 2, 'I think.', stands there twice"),
    ],
)
def test_contexts_that_are_refused(contexts: list[str], message: str, moments: Moments) -> None:
    model = tiny_model("gpt2")
    with pytest.raises(errors.SettingsError) as caught:
        edit(model, FACTS, "pmet", SETTINGS, contexts=contexts, covariance=moments(model))
    assert message in str(caught.value)


@pytest.mark.usefixtures("no_values")
@pytest.mark.parametrize("method", [name for name, case in CASES.items() if case.moments])
def test_second_moments_that_are_refused(method: str, moments: Moments, tmp_path: Path) -> None:
    model = tiny_model("llama")
    before = weights_of(model)
    path = f"{model.site('ffn', 2).path}.safetensors"

    def refused(folder: Path) -> str:
        with pytest.raises(errors.CovarianceError) as caught:
            edit(model, FACTS, method, CASES[method].given(model), contexts=CONTEXTS, covariance=folder)
        assert_untouched(model, before)
        return str(caught.value)

    assert "There are no second moments of" in refused(tmp_path / "nowhere")
    assert "was measured for another model (fingerprint" in refused(moments(tiny_model("qwen3")))
    assert "was measured for another dtype" in refused(moments(tiny_model("llama", "float64")))

    folder = tmp_path / "own"
    folder.mkdir()
    for file in moments(model).iterdir():
        save_file(load_file(file), folder / file.name)
    good = load_file(folder / path)
    few = torch.randn(3, 48)
    save_file({**good, "second_moment": (few.T @ few).contiguous(), "count": torch.tensor(3)}, folder / path)
    assert (
        f"The second moments in {folder / path} are not positive definite: measured on 3 tokens"
        in refused(folder)
    )
    save_file({**good, "second_moment": torch.full((48, 48), torch.nan)}, folder / path)
    assert "2304 of 2304 elements are infinite or not a number" in refused(folder)
    save_file({**good, "second_moment": torch.eye(64)}, folder / path)
    assert (
        "second_moment is 64 x 64, but model.layers.2.mlp.down_proj of tiny-llama has 48 inputs"
        in refused(folder)
    )
    (folder / path).write_bytes(b"")
    assert "is cut off or damaged" in refused(folder)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_a_preset_is_edited_by_the_rule_and_told_so(
    method: str, moments: Moments, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("gpt2")
    name = CASES[method].layers
    layers = LAYER_RULES[load_presets(method).layer_rules[name]].choose(model.layers)
    with caplog.at_level(logging.WARNING, logger="errata"):
        given = {**CASES[method].quick, **CASES[method].own(model, layers)}
        found = edit(model, FACTS[:1], method, given, contexts=CONTEXTS, covariance=moments(model))
    (record,) = caplog.records
    assert f"No {method} preset knows the model 'tiny-gpt2', so a rule chose its settings" in record.message
    assert f"{layers[-1]} of 4 blocks" in record.message
    assert (
        f"All else is from presets/{method}.toml. `errata calibrate tiny-gpt2 --method {method}`"
        in record.message
    )
    assert found.origin.settings[name] == layers
    assert found.origin.preset.startswith("rule (")


@pytest.mark.parametrize("method", METHODS)
def test_a_named_preset_is_taken_for_any_model(
    method: str, moments: Moments, caplog: pytest.LogCaptureFixture
) -> None:
    model, case = tiny_model("gpt2"), CASES[method]
    given = {case.layers: [1], **case.quick, **case.own(model, [1])}
    found = edit(
        model, FACTS[:1], method, given, contexts=CONTEXTS, covariance=moments(model), preset=case.preset
    )
    named = load_presets(method).named(case.preset)
    assert found.origin.preset == f"{named.name} ({named.source})"
    assert found.origin.settings == flatten(build(METHODS[method].settings, named.values, given))
    assert caplog.records == []
