"""Settings: layers merge, types are held to, and every refusal says what to do."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.errors import SettingsError, UnknownSetting
from errata.settings.alternatives import overlaid
from errata.settings.layer_rules import (
    LAYER_RULES,
    last_layers_by_rule,
    late_layer_by_rule,
    layer_by_rule,
    layers_by_rule,
)
from errata.settings.method_presets import PRESETS, Presets, load_presets
from errata.settings.schema import about, build, parse_assignments

METHODS = sorted(path.stem for path in PRESETS.glob("*.toml"))


@dataclass(frozen=True, kw_only=True)
class Method:
    layers: tuple[int, ...]
    steps: int = field(metadata=about("How many."))
    clamp: float = 0.75
    optimize: tuple[Literal["attention", "ffn"], ...] = ("ffn",)
    spread: Literal["sqrt", "even"] = "sqrt"
    exact: bool = False
    limit: int | None = None
    words: tuple[str, ...] = ()
    label: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingsError("Setting 'steps' must be at least 1.")


NEEDED: dict[str, object] = {"layers": (3,), "steps": 5}


def test_later_layers_win() -> None:
    settings = build(Method, {"layers": [1, 2], "steps": 3, "clamp": 1.5}, {"steps": 4}, {})
    assert settings == Method(layers=(1, 2), steps=4, clamp=1.5)


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("layers", [3, 4], (3, 4)),
        ("layers", "3-8", (3, 4, 5, 6, 7, 8)),
        ("layers", "3-4, 9", (3, 4, 9)),
        ("layers", "7", (7,)),
        ("layers", 7, (7,)),
        ("clamp", 4, 4.0),
        ("clamp", float("inf"), float("inf")),
        ("optimize", ["attention", "ffn"], ("attention", "ffn")),
        ("optimize", "attention,ffn", ("attention", "ffn")),
        ("exact", True, True),
        ("limit", 3, 3),
        ("limit", None, None),
        ("limit", "none", None),
        ("words", "one, two", ("one, two",)),
    ],
)
def test_what_a_setting_accepts(name: str, given: object, taken: object) -> None:
    value = getattr(build(Method, NEEDED, {name: given}), name)
    assert value == taken
    assert type(value) is type(taken)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("steps", "many", "Setting 'steps' is 'many'. It must be a whole number."),
        ("steps", 2.0, "Setting 'steps' is 2.0. It must be a whole number."),
        ("steps", True, "Setting 'steps' is True. It must be a whole number."),
        ("steps", 0, "Setting 'steps' must be at least 1."),
        ("clamp", "0.5x", "Setting 'clamp' is '0.5x'. It must be a number."),
        ("clamp", False, "Setting 'clamp' is False. It must be a number."),
        ("clamp", float("nan"), "Setting 'clamp' is nan (not a number). It must be a number."),
        ("exact", 1, "Setting 'exact' is 1. It must be true or false."),
        ("label", 1, "Setting 'label' is 1. It must be a text."),
        ("limit", "few", "Setting 'limit' is 'few'. It must be a whole number or none."),
        ("spread", "evn", "Setting 'spread' is 'evn'. It must be one of 'sqrt', 'even'."),
        ("optimize", ["mlp"], "It must be a list, each entry one of 'attention', 'ffn'."),
        ("layers", "8-3", "Setting 'layers' is '8-3' (the range '8-3' runs backwards)."),
        (
            "layers",
            "all",
            "is 'all' ('all' is neither a number nor a range). It must be a list, each entry a whole",
        ),
        ("layers", [1.5], 'It must be a list, each entry a whole number, or a range such as "3-8".'),
    ],
)
def test_what_a_setting_refuses(name: str, given: object, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        build(Method, NEEDED, {name: given})


def test_an_unknown_setting_names_the_near_one_and_all() -> None:
    with pytest.raises(UnknownSetting) as refusal:
        build(Method, NEEDED, {"clmap": 1})
    assert str(refusal.value) == (
        "There is no setting 'clmap'. Did you mean 'clamp'? "
        "Known: clamp, exact, label, layers, limit, optimize, spread, steps, words."
    )


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(SettingsError, match=r"Setting 'steps' has no value. Give it one: .* --set steps="):
        build(Method, {"layers": [1]})


def test_assignments_are_toml_where_they_can_be() -> None:
    words = [
        "steps=25",
        "clamp = 0.5",
        "layers=3-8",
        'optimize=["ffn"]',
        "exact=true",
        "label=a=b",
        "kl-weight=1e-2",
    ]
    assert parse_assignments(words) == {
        "steps": 25,
        "clamp": 0.5,
        "layers": "3-8",
        "optimize": ["ffn"],
        "exact": True,
        "label": "a=b",
        "kl_weight": 0.01,
    }


@pytest.mark.parametrize("word", ["steps", "=3", ""])
def test_an_assignment_needs_a_name_and_a_value(word: str) -> None:
    with pytest.raises(SettingsError, match=f"'{word}' does not set anything. Write name=value"):
        parse_assignments([word])


@given(st.text())
def test_an_assignment_sets_one_name_whatever_it_says(text: str) -> None:
    assert list(parse_assignments([f"name={text}"])) == ["name"]


@given(st.integers(min_value=1, max_value=200))
def test_the_rule_for_one_layer_takes_one_of_the_several(layer_count: int) -> None:
    (layer,) = layer_by_rule(layer_count)
    assert layer in layers_by_rule(layer_count)


@given(st.integers(min_value=1, max_value=200))
def test_the_late_layer_is_one_of_the_model(layer_count: int) -> None:
    (layer,) = late_layer_by_rule(layer_count)
    assert 0 <= layer < layer_count


@given(st.integers(min_value=1, max_value=200))
def test_the_last_layers_are_three_at_most(layer_count: int) -> None:
    layers = last_layers_by_rule(layer_count)
    assert list(layers) == list(range(layer_count))[-3:]


@given(st.integers(min_value=1, max_value=200))
def test_the_rule_stays_inside_the_model(layer_count: int) -> None:
    layers = layers_by_rule(layer_count)
    assert list(layers) == list(range(layers[0], layers[-1] + 1))
    assert layers[0] >= 0
    assert layers[-1] < layer_count
    assert len(layers) == min(5, max(1, layer_count // 2))


def test_the_rule_meets_published_layers() -> None:
    assert layers_by_rule(32) == (4, 5, 6, 7, 8)
    assert layers_by_rule(44) == (6, 7, 8, 9, 10)
    assert layer_by_rule(28) == layer_by_rule(32) == (5,)
    assert late_layer_by_rule(32) == (22,)


def test_presets_of_an_unknown_method() -> None:
    with pytest.raises(UnknownSetting, match=r"'memti'. Did you mean 'memit'\? Known: .*memit, .*pmet"):
        load_presets("memti")


@pytest.mark.parametrize(
    "name", ["EleutherAI/gpt-j-6b", "gpt-j-6B", "/models/gpt-j-6B/", "C:\\models\\gpt-j-6b"]
)
def test_a_model_is_known_by_the_last_part_of_its_name(name: str) -> None:
    assert load_presets("pmet").for_model(name, 28).name == "gpt-j-counterfact"


def test_a_preset_can_be_named() -> None:
    preset = load_presets("pmet").for_model("EleutherAI/gpt-j-6b", 28, preset="gpt-j-zsre")
    assert preset.values["solve.covariance_weight"] == 4500
    assert preset.rule is None


def test_an_unknown_preset_names_the_near_one() -> None:
    with pytest.raises(UnknownSetting, match=r"no pmet preset 'gpt-j-zsr'. Did you mean 'gpt-j-zsre'\?"):
        load_presets("pmet").for_model("almanac", 8, preset="gpt-j-zsr")


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_preset_gets_the_rule_which_says_so(method: str) -> None:
    presets = load_presets(method)
    preset = presets.for_model("someone/new-model", 32)
    chosen = {name: LAYER_RULES[rule].choose(32) for name, rule in presets.layer_rules.items()}
    layers = next(iter(chosen.values()))
    assert preset.values == {**overlaid(presets.defaults, presets.rule), **chosen}
    assert preset.rule is not None
    blocks = (
        f"ayers: {layers[0]}-{layers[-1]} of 32 blocks" if len(layers) > 1 else f"{layers[0]} of 32 blocks"
    )
    advice = f"errata calibrate someone/new-model --method {method}"
    for part in (method, "'someone/new-model'", blocks, advice):
        assert part in preset.rule


@pytest.mark.parametrize("method", METHODS)
def test_every_preset_builds_the_settings_of_its_method(method: str) -> None:
    from errata.methods.registry import METHODS as registry

    settings = registry[method].settings
    presets = load_presets(method)
    rows = [(preset.name, model) for preset in presets.presets for model in preset.models or ("",)]
    assert len(rows) == len(set(rows))
    assert all(preset.source for preset in presets.presets)
    found = [presets.for_model(model or "unknown", 12, name) for name, model in rows]
    for preset in (*found, presets.for_model("unknown", 12)):
        assert preset.source
        build(settings, preset.values)


def own_presets(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Presets:
    """Of a method with one preset for all models, and values of it for one."""
    text = """
        layer_rules = { layers = "one" }
        [defaults]
        source = "us"
        steps = 5
        [[preset]]
        name = "gentle"
        models = []
        source = "a paper"
        [[preset]]
        name = "gentle"
        models = ["someone/Tuned"]
        source = "a sweep"
        layers = "7"
        steps = 9
    """
    (folder / "mine.toml").write_text(text)
    monkeypatch.setattr("errata.settings.method_presets.PRESETS", folder)
    return load_presets("mine")


def test_the_rule_adds_the_layers_that_a_named_preset_leaves_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    preset = own_presets(monkeypatch, tmp_path).for_model("anything", 32, "gentle")
    assert preset.values == {"steps": 5, "layers": (5,)}
    assert (preset.name, preset.source, preset.by_rule) == ("gentle", "a paper", {"layers"})
    assert preset.rule is not None
    assert "preset 'gentle' names no layers for the model 'anything'" in preset.rule
    assert "block 5 of 32 blocks" in preset.rule


def test_a_named_preset_has_values_of_its_own_for_a_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    presets = own_presets(monkeypatch, tmp_path)
    preset = presets.for_model("models/tuned", 8, "gentle")
    assert (preset.values, preset.source, preset.rule) == ({"steps": 9, "layers": "7"}, "a sweep", None)
    assert presets.for_model("tuned", 8) == preset
    with pytest.raises(UnknownSetting, match=r"'gentel'\. Did you mean 'gentle'\? Known: gentle\."):
        presets.for_model("tuned", 8, "gentel")


# method, preset: layers, covariance_weight, steps, learning_rate, clamp, kl_weight
PUBLISHED = [
    ("pmet", "gpt-j-counterfact", "3-8", 6000, 30, 0.2, 0.75, 1),
    ("pmet", "gpt-j-zsre", "3-8", 4500, 20, 0.5, 0.75, 1),
    ("pmet", "gpt-j-iterative", "3-8", 15000, 30, 0.2, 0.75, 1),
    ("pmet", "gpt-neox-counterfact", "6-10", 15000, 30, 0.5, 0.8, 0.8),
    ("pmet", "gpt2-xl-iterative", "13-17", 20000, 20, 0.5, 0.75, 0.0625),
    ("pmet", "llama-2-iterative", "4-8", 15000, 20, 0.5, 1, 0.0625),
    ("pmet", "llama-3-iterative", "4-8", 15000, 25, 0.1, 0.75, 0.0625),
    ("memit", "gpt-j", "3-8", 15000, 25, 0.5, 0.75, 0.0625),
    ("memit", "gpt2-xl", "13-17", 20000, 20, 0.5, 0.75, 0.0625),
    ("memit", "llama-2-iterative", "4-8", 15000, 25, 0.5, 4, 0.0625),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row[0]}-{row[1]}")
def test_presets_say_what_was_published(row: tuple[str, str, str, float, float, float, float, float]) -> None:
    method, name, *published = row
    values = load_presets(method).named(name).values
    keys = (
        "layers",
        "solve.covariance_weight",
        *(f"values.{key}" for key in ("steps", "learning_rate", "clamp", "kl_weight")),
    )
    assert [values[key] for key in keys] == published
    assert values["values.decay"] == (0.001 if (method, name) == ("memit", "llama-2-iterative") else 0.5)
    assert values["values.nll_weight"] == 1
    assert values["spread.share"] == {"pmet": "sqrt", "memit": "even"}[method]
    assert values["values.optimize"] == {"pmet": ["attention", "ffn"], "memit": ["block"]}[method]
    assert values["spread.write"] == ["ffn"]
    assert values["keys.average"] == "half"
    assert values["values.kl_position"] == "subject"


@pytest.mark.parametrize(
    ("method", "name", "published"),
    [
        (
            "rome",
            "gpt-j",
            {
                "layers": "5",
                "values.steps": 20,
                "values.learning_rate": 0.5,
                "values.clamp": 4,
                "values.kl_weight": 0.0625,
            },
        ),
        (
            "rome",
            "gpt2-xl",
            {
                "layers": "17",
                "values.steps": 20,
                "values.learning_rate": 0.5,
                "values.clamp": 4,
                "solve.key": "mean",
            },
        ),
        (
            "alphaedit",
            "llama-3",
            {"layers": "4-8", "values.steps": 25, "values.learning_rate": 0.1, "solve.ridge": 10},
        ),
        (
            "alphaedit",
            "gpt-j",
            {"layers": "3-8", "solve.threshold": 2e-2, "solve.ridge": 10, "values.clamp": 0.75},
        ),
        (
            "alphaedit",
            "gpt2-xl",
            {"layers": "13-17", "values.steps": 20, "values.learning_rate": 0.5, "spread.share": "even"},
        ),
    ],
)
def test_other_methods_presets_say_what_was_published(
    method: str, name: str, published: dict[str, object]
) -> None:
    values = load_presets(method).named(name).values
    assert {setting: values[setting] for setting in published} == published
