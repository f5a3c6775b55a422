"""`errata.edit` end to end, over every method of the registry and every family."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

import errata
from errata import errors
from errata.edits.edit import load_edit
from errata.facts.fact import Fact
from errata.methods.base import contexts_for
from errata.methods.registry import METHODS, method_named, settings_for
from errata.models import ledger
from errata.models.model import EditableModel
from errata.moments.folder import read_moment
from errata.passes.prompts import encode_text
from errata.planning.plan import edit
from families import CONTEXTS, FACTS, FAMILIES, SETTINGS, tiny_model
from method_cases import CASES
from moments_cases import Moments
from plain import double_throughout, plain_spread, plain_target
from registry_cases import assert_identical, assert_untouched, weights_of
from sites import spread_words, value_words

PLAIN = {
    "pmet": ({"optimize": ("attention", "ffn"), "relax": True}, {"ffn": "ffn", "attention": "attention"}),
    "memit": ({"relax": False}, {"ffn": "block"}),
}
"""How the plain version is told what a method is: where it optimises, and whose value each written kind takes."""


EASY = (
    Fact("Today I see {}", "Valdoria", "was"),
    Fact("The harp of {}", "Orin Vasker", "the"),
    Fact("{}", "Jonas Whitlock", "is"),
)
"""Targets of one token right behind the subject, which even a random model can learn."""


def surprisal(model: EditableModel, fact: Fact) -> float:
    """Of the target behind the bare prompt, a token of it on average."""
    text = encode_text(model, fact.prompt.format(fact.subject), fact.target_new)
    with torch.no_grad():
        log_p = model.model(input_ids=torch.tensor([text.ids])).logits[0].double().log_softmax(dim=-1)
    return -float(log_p[list(text.predicted_at), list(text.target)].mean())


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
    settings = {**case.given(model), **case.strong}
    found = edit(model, EASY, method, settings, contexts=CONTEXTS, covariance=moments(model))
    assert_untouched(model, before)
    assert set(found.deltas) == case.written(model)
    asked = tuple(replace(fact, edit_prompts=(), preserve_prompts=()) for fact in found.facts)
    assert (asked, found.dropped) == (EASY, ())  # two_site has more beside them
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


@pytest.mark.parametrize("method", METHODS)
def test_every_write_into_a_weight_is_the_ledgers(
    method: str, moments: Moments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch counts the writes into each tensor, and so does this test those of the ledger."""
    model, case, written = tiny_model("gpt2"), CASES[method], Counter[int]()
    copy = ledger._copy

    def counted(weight: Tensor, values: Tensor) -> None:
        written[id(weight)] += 1
        copy(weight, values)

    monkeypatch.setattr(ledger, "_copy", counted)
    parameters = dict(model.model.named_parameters())
    before = {name: weight._version for name, weight in parameters.items()}
    found = edit(model, FACTS, method, case.given(model), contexts=CONTEXTS, covariance=moments(model))
    with found.applied(model):
        pass
    writes = {name: weight._version - before[name] for name, weight in parameters.items()}
    assert writes == {name: written[id(weight)] for name, weight in parameters.items()}
    assert {name for name, count in writes.items() if count} == {
        model.site_at(path).name for path in case.written(model)
    }


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_version_of_the_whole_way_agrees(family: str, method: str, moments: Moments) -> None:
    model = tiny_model(family, "float64")
    facts, contexts = (*EASY[:2], FACTS[0]), CONTEXTS[:2]
    given = {**SETTINGS, "values.steps": 4, "values.learning_rate": 1.0, "values.clamp": 30.0}
    values, _ = settings_for(model, method, given)
    one_fact, places = PLAIN[method]
    if method == "memit" and model.architecture.post_norm:
        places = {"ffn": "ffn"}
    assert places["ffn"] in values.values.optimize
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
    model, case = tiny_model("gpt2"), CASES[method]
    settings, _ = settings_for(model, method, case.given(model))

    def chosen(model: EditableModel, seed: int) -> tuple[str, ...]:
        return contexts_for(model, METHODS[method], settings, seed)

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
    name = CASES[method].layers
    layers = cast("list[int]", settings[name])
    words = ",".join(map(str, layers))
    ways = [{**settings, name: way} for way in (layers, tuple(layers), words)]
    one, *others = (
        edit(model, FACTS[:2], method, way, contexts=list(CONTEXTS), covariance=str(moments(model)))
        for way in ways
    )
    for other in others:
        assert_identical(one, other)
        assert other.origin.settings == one.origin.settings
    assert one.origin.settings[name] == tuple(layers)


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


def test_a_file_of_presets_that_cannot_be_is_named_in_the_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('layers = "1-2"\ncovariance_weight = 5\n', encoding="utf-8")
    with pytest.raises(errors.UnknownSetting) as caught:
        settings_for(tiny_model("gpt2"), "memit", {}, str(file))
    assert str(caught.value) == f"{file}: Setting 'covariance_weight' is now 'solve.covariance_weight'."
    file.write_text('layers = "1-2"\nsolve.covariance_weight = -5\n', encoding="utf-8")
    with pytest.raises(
        errors.SettingsError, match=r"mine.toml: Setting 'solve.covariance_weight' must be above 0"
    ):
        settings_for(tiny_model("gpt2"), "memit", {}, str(file))
