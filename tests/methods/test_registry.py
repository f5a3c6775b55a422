"""`errata.edit` end to end, over every method of the registry and every family; what it refuses, and when."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import errata
from errata import errors
from errata.edits.edit import Edit, load_edit
from errata.facts.fact import Fact
from errata.methods.registry import METHODS, method_named, settings_for
from errata.models.model import EditableModel
from errata.moments.folder import read_moment
from errata.passes import memory
from errata.passes.prompts import encode_text
from errata.planning.plan import edit
from errata.settings.layer_rules import LAYER_RULES
from errata.settings.method_presets import load_presets
from errata.settings.schema import build
from errata.values import targets
from families import CONTEXTS, FACTS, FAMILIES, SETTINGS, tiny_model
from method_cases import CASES, Refusal
from moments_cases import Moments
from plain import double_throughout, plain_spread, plain_target
from poison import own_token, poisoned
from sites import spread_words, value_words

PLAIN = {
    "pmet": ({"optimize": ("attention", "ffn"), "relax": True}, {"ffn": "ffn", "attention": "attention"}),
    "memit": ({"optimize": ("block",), "relax": False}, {"ffn": "block"}),
}
"""How the plain version is told what a method is: where it optimises, and whose value each written kind takes."""
EASY = (
    Fact("Today I see {}", "Valdoria", "was"),
    Fact("The harp of {}", "Orin Vasker", "the"),
    Fact("{}", "Jonas Whitlock", "is"),
)
"""Targets of one token right behind the subject, which even a random model can learn."""


@pytest.fixture
def no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals come before hours are spent on values."""

    def never(*_: object) -> list[object]:
        raise AssertionError("the Optimization stage was begun")

    monkeypatch.setattr(targets, "optimize_batch", never)
    monkeypatch.setattr("errata.methods.finetune._Training.run", never)


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def assert_untouched(model: EditableModel, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())
    assert model.written == []


def assert_identical(one: Edit, other: Edit) -> None:
    assert one.deltas.keys() == other.deltas.keys()
    for path, delta in one.deltas.items():
        mine, theirs = delta.tensors, other.deltas[path].tensors
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def surprisal(model: EditableModel, fact: Fact) -> float:
    """Of the target behind the bare prompt, a token of it on average."""
    text = encode_text(model, fact.prompt.format(fact.subject), fact.target_new)
    with torch.no_grad():
        log_p = model.model(input_ids=torch.tensor([text.ids])).logits[0].double().log_softmax(dim=-1)
    return -float(log_p[list(text.predicted_at), list(text.target)].mean())


def editable(model: EditableModel, method: str) -> bool:
    """Some methods mind where a family normalises."""
    return CASES[method].post_norm or not model.architecture.post_norm


def test_every_method_has_a_case() -> None:
    assert CASES.keys() == METHODS.keys()


# --- every method on every family ------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((family, "float32") for family in FAMILIES), ("gpt2", "bfloat16"), ("llama", "float16")],
)
def test_an_edit_makes_the_facts_likelier(
    family: str, dtype: str, method: str, moments: Moments, tmp_path: Path
) -> None:
    model, case = tiny_model(family, dtype), CASES[method]
    before = weights_of(model)
    if not editable(model, method):
        with pytest.raises(
            errors.UnsupportedArchitecture, match=r"normalises after the FFN.* Use --method pmet"
        ):
            edit(model, FACTS, method, case.given(model), contexts=CONTEXTS, covariance=moments(model))
        return
    settings = {**case.given(model), **case.strong}
    found = edit(model, EASY, method, settings, contexts=CONTEXTS, covariance=moments(model))
    assert_untouched(model, before)
    assert set(found.deltas) == case.written(model)
    assert (found.facts, found.dropped) == (EASY, ())
    assert (found.origin.method, found.origin.contexts) == (method, CONTEXTS)
    assert all(found.origin.settings[name] == value for name, value in case.strong.items())
    assert found.origin.fingerprint == model.fingerprint
    assert found.origin.covariance == (str(moments(model)) if case.moments else "")
    found.save(tmp_path / "edit")
    again = load_edit(tmp_path / "edit")
    assert again.origin == found.origin
    clean = [surprisal(model, fact) for fact in EASY]
    with again.applied(model):
        edited = [surprisal(model, fact) for fact in EASY]
    assert_untouched(model, before)
    assert all(now < then for now, then in zip(edited, clean, strict=True))


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_version_of_the_whole_way_agrees(family: str, method: str, moments: Moments) -> None:
    model = tiny_model(family, "float64")
    if not editable(model, method):
        return
    facts, contexts = (*EASY[:2], FACTS[0]), CONTEXTS[:2]
    given = {**SETTINGS, "values.steps": 4, "values.learning_rate": 1.0, "values.clamp": 30.0}
    values, _ = settings_for(model, method, given)
    one_fact, places = PLAIN[method]
    stored = {
        (kind, layer): read_moment(moments(model), model, model.site(kind, layer))
        for kind in values.spread.write
        for layer in values.layers
    }
    with double_throughout(model):
        found = edit(model, facts, method, given, contexts=contexts, covariance=moments(model))
        words = {**value_words(values), **one_fact}
        plain = [plain_target(model, fact, contexts, **words) for fact in facts]
        updates = plain_spread(
            model,
            facts,
            contexts,
            {
                places[kind]: torch.stack([one.value(places[kind]) for one in plain])
                for kind in values.spread.write
            },
            lambda kind, layer: stored[kind, layer],
            **spread_words(values),
        )
    assert len(found.deltas) == len(updates)
    for (kind, layer), update in updates.items():
        mine = found.deltas[model.site(kind, layer).path].matrix
        torch.testing.assert_close(mine, update, rtol=0, atol=1e-9 * float(update.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_one_call_twice_is_one_edit(method: str, moments: Moments, tmp_path: Path) -> None:
    model = tiny_model("llama")
    one, other = (
        edit(model, FACTS, method, CASES[method].given(model), contexts=CONTEXTS, covariance=moments(model))
        for _ in range(2)
    )
    assert_identical(one, other)
    for number, found in enumerate((one, other)):
        replace(found, origin=replace(found.origin, created="now")).save(tmp_path / str(number))
    for name in ("edit.json", "edit.safetensors"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_contexts_are_sampled_with_the_seed_and_recorded(method: str, moments: Moments) -> None:
    model, case, chosen = tiny_model("gpt2"), CASES[method], METHODS[method].contexts
    sampled = edit(model, FACTS[:1], method, case.given(model), covariance=moments(model), seed=3)
    assert sampled.origin.contexts == chosen(model, 3)
    assert case.samples_contexts == (chosen(model, 3) != chosen(model, 0))
    assert sampled.origin.seed == 3
    given = edit(
        model,
        FACTS[:1],
        method,
        case.given(model),
        contexts=sampled.origin.contexts,
        covariance=moments(model),
        seed=sampled.origin.seed,
    )
    assert_identical(sampled, given)


@pytest.mark.parametrize("method", METHODS)
def test_settings_are_lists_tuples_or_words(method: str, moments: Moments) -> None:
    model = tiny_model("gpt2")
    settings = CASES[method].given(model)
    layers = cast("list[int]", settings["layers"])
    words = ",".join(map(str, layers))
    ways = [{**settings, "layers": way} for way in (layers, tuple(layers), words)]
    one, *others = (
        edit(model, FACTS[:2], method, way, contexts=list(CONTEXTS), covariance=str(moments(model)))
        for way in ways
    )
    for other in others:
        assert_identical(one, other)
        assert other.origin.settings == one.origin.settings
    assert one.origin.settings["layers"] == tuple(layers)


def test_what_is_written_is_a_list_a_tuple_or_a_word(moments: Moments) -> None:
    model = tiny_model("gpt2")
    one, *others = (
        edit(
            model,
            FACTS[:2],
            "pmet",
            {**SETTINGS, "spread.write": way},
            contexts=CONTEXTS,
            covariance=moments(model),
        )
        for way in (["ffn"], ("ffn",), "ffn")
    )
    for other in others:
        assert_identical(one, other)


def test_attention_is_written_too(moments: Moments) -> None:
    model = tiny_model("gpt2")
    both = edit(
        model,
        FACTS,
        "pmet",
        {**SETTINGS, "spread.write": ["attention", "ffn"]},
        contexts=CONTEXTS,
        covariance=moments(model),
    )
    assert set(both.deltas) == {
        model.site(kind, layer).path for kind in ("ffn", "attention") for layer in (1, 2)
    }
    alone = edit(
        model,
        FACTS,
        "pmet",
        {**SETTINGS, "spread.write": ["attention"]},
        contexts=CONTEXTS,
        covariance=moments(model),
    )
    assert set(alone.deltas) == {model.site("attention", layer).path for layer in (1, 2)}


def test_the_same_fact_twice_is_no_contradiction(moments: Moments) -> None:
    model = tiny_model("gpt2")
    found = edit(model, (FACTS[0], FACTS[0]), "memit", SETTINGS, contexts=CONTEXTS, covariance=moments(model))
    assert len(found.facts) == 2


def test_an_edited_model_is_edited_again(moments: Moments) -> None:
    model = tiny_model("gpt2")
    before = weights_of(model)
    first = edit(model, FACTS[:2], "memit", SETTINGS, contexts=CONTEXTS, covariance=moments(model))
    with first.applied(model):
        edited = weights_of(model)
        second = edit(model, FACTS[2:], "memit", SETTINGS, contexts=CONTEXTS, covariance=moments(model))
        assert all(torch.equal(weight, edited[name]) for name, weight in model.model.named_parameters())
        assert second.origin.fingerprint != first.origin.fingerprint
        with second.applied(model):
            pass
    assert_untouched(model, before)
    with pytest.raises(errors.WrongModel):
        second.apply(model)


def test_the_public_names_are_these() -> None:
    assert errata.edit is edit
    assert all(method_named(name).name == name for name in METHODS)
    assert all(row.summary and row.source for row in METHODS.values())


# --- what is refused, before anything is computed --------------------------------------------------


NOWHERE: Refusal = (
    {"layers": [9]},
    errors.LayerOutOfRange,
    "names block 9, but tiny-gpt2 has blocks 0 to 3",
)


@pytest.mark.usefixtures("no_values")
@pytest.mark.parametrize(
    ("method", "refusal"),
    [(name, refusal) for name, case in CASES.items() for refusal in (NOWHERE, *case.refused)],
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
        edit(model, FACTS, preset="gptj")


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

    monkeypatch.setattr("errata.methods.registry.ensure", never)
    assert "There are no facts to write" in refused()
    assert (
        "Two facts contradict each other: '{} plays the' about 'Orin Vasker' shall be both 'violin' and 'harp'"
        in refused(*FACTS, replace(FACTS[1], target_new="harp"))
    )
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


# --- a model without a preset ----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_a_preset_is_edited_by_the_rule_and_told_so(
    method: str, moments: Moments, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("gpt2")
    layers = LAYER_RULES[load_presets(method).layer_rule].choose(model.layers)
    with caplog.at_level(logging.WARNING, logger="errata"):
        given = {**CASES[method].quick, **CASES[method].own(model, layers)}
        found = edit(model, FACTS[:1], method, given, contexts=CONTEXTS, covariance=moments(model))
    (record,) = caplog.records
    assert f"No {method} preset knows the model 'tiny-gpt2', so a rule chose its settings" in record.message
    assert f"{layers[-1]} of 4 blocks" in record.message
    assert f"All else: the defaults in presets/{method}.toml" in record.message
    assert found.origin.settings["layers"] == layers
    assert found.origin.preset.startswith("rule (")


@pytest.mark.parametrize("method", METHODS)
def test_a_named_preset_is_taken_for_any_model(
    method: str, moments: Moments, caplog: pytest.LogCaptureFixture
) -> None:
    model, case = tiny_model("gpt2"), CASES[method]
    given = {"layers": [1], **case.quick, **case.own(model, [1])}
    found = edit(
        model, FACTS[:1], method, given, contexts=CONTEXTS, covariance=moments(model), preset=case.preset
    )
    named = load_presets(method).named(case.preset)
    assert found.origin.preset == f"{named.name} ({named.source})"
    assert found.origin.settings == asdict(build(METHODS[method].settings, named.values, given))
    assert caplog.records == []


# --- a loss that is not a number -------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_fact_whose_loss_is_not_a_number_is_left_out(
    method: str, moments: Moments, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    settings = CASES[method].given(model)
    before = weights_of(model)
    bad, others = FACTS[3], FACTS[:3]
    without = edit(model, others, method, settings, contexts=CONTEXTS, covariance=moments(model))

    with poisoned(model, own_token(model, bad, others)):
        found = edit(
            model,
            (FACTS[0], bad, *FACTS[1:3]),
            method,
            settings,
            contexts=CONTEXTS,
            covariance=moments(model),
        )
        with pytest.raises(errors.NoFactsLeft, match="The loss of every fact was not a number"):
            edit(model, [bad], method, settings, contexts=CONTEXTS, covariance=moments(model))
    assert_untouched(model, before)
    assert found.facts == others
    (dropped,) = found.dropped
    assert (dropped.fact, dropped.reason) == (bad, "its loss was not a number (NaN or infinite)")
    assert "'{} was created by' about 'Zentro' was left out: its loss was not a number" in caplog.text
    for path, delta in without.deltas.items():
        torch.testing.assert_close(found.deltas[path].matrix, delta.matrix, rtol=1e-3, atol=1e-5)
    found.save(tmp_path / "edit")
    assert load_edit(tmp_path / "edit").dropped == found.dropped


# --- killed in the middle --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "stage"), [(name, stage) for name, case in CASES.items() for stage in case.stages]
)
def test_a_killed_edit_goes_on_where_it_was(
    method: str, stage: str, moments: Moments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gemma3_text" if editable(tiny_model("gemma3_text"), method) else "gpt2")
    before, settings = weights_of(model), CASES[method].given(model)
    monkeypatch.setattr(memory, "MOST", 1)
    uninterrupted = edit(model, FACTS, method, settings, contexts=CONTEXTS, covariance=moments(model))

    def kill(told: str, done: int, total: int) -> None:
        if told == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit(
            model,
            FACTS,
            method,
            settings,
            contexts=CONTEXTS,
            covariance=moments(model),
            keep_in=tmp_path,
            on_progress=kill,
        )
    assert_untouched(model, before)

    computed: list[int] = []
    optimize_batch = targets.optimize_batch

    def counted(model, batch, *rest):  # type: ignore[no-untyped-def]
        computed.append(1)
        return optimize_batch(model, batch, *rest)

    monkeypatch.setattr(targets, "optimize_batch", counted)
    told: list[tuple[str, int, int]] = []
    again = edit(
        model,
        FACTS,
        method,
        settings,
        contexts=CONTEXTS,
        covariance=moments(model),
        keep_in=tmp_path,
        on_progress=lambda *words: told.append(words),
    )
    assert len(computed) == CASES[method].stages[stage][1]
    assert_identical(again, uninterrupted)
    for name, (units, _) in CASES[method].stages.items():
        assert [words for words in told if words[0] == name] == [(name, n + 1, units) for n in range(units)]
