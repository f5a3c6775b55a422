"""Settings are trees: named by paths or in tables, refused by their old names, and worth what they were before."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from errata.errors import SettingsError, UnknownSetting
from errata.methods.registry import METHODS
from errata.settings.method_presets import load_presets
from errata.settings.old_names import LATE, LATE_NAMES, NEW_NAMES, new_names
from errata.settings.schema import about, build, dotted, flatten, parse_assignments, settings_of

RECORDED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "fixtures" / "flat-settings" / "settings.json").read_text()
)
"""What each preset of each method was before settings were composed (the rule's: of 10 and of 32 blocks)."""
FLAT = ("finetune", "mend")
ROMES_AVERAGE = {"keys.average": "plain"}
"""ROME's keys were averaged so without a setting."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    steps: int = field(metadata=about("How many steps."))
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingsError("Setting 'steps' must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class Site:
    layers: tuple[int, ...]
    values: Stage


@dataclass(frozen=True, kw_only=True)
class Two:
    early: Site
    late: Site
    label: str = ""


NEEDED: dict[str, object] = {
    "early": {"layers": [1], "values": {"steps": 3}},
    "late": {"layers": "2-3", "values.steps": 4},
}


def test_a_tree_is_built_from_tables_and_from_paths() -> None:
    built = build(Two, NEEDED, {"late.values.rate": 1}, {"late": {"values": {"steps": 5}}, "label": "x"})
    assert built == Two(
        early=Site(layers=(1,), values=Stage(steps=3)),
        late=Site(layers=(2, 3), values=Stage(steps=5, rate=1.0)),
        label="x",
    )


def test_a_tree_is_taken_apart_and_built_again() -> None:
    built = build(Two, NEEDED)
    flat = flatten(built)
    assert flat == {
        "early.layers": (1,),
        "early.values.steps": 3,
        "early.values.rate": 0.5,
        "late.layers": (2, 3),
        "late.values.steps": 4,
        "late.values.rate": 0.5,
        "label": "",
    }
    assert build(Two, flat) == built
    assert dotted({"a": {"b": {"c": 1}, "d.e": 2}, "f": 3}) == {"a.b.c": 1, "a.d.e": 2, "f": 3}


def test_a_tree_says_what_it_has() -> None:
    found = {one.name: (one.help, one.kind) for one in settings_of(Two)}
    assert found["late.values.steps"] == ("How many steps.", int)
    assert list(found) == list(flatten(build(Two, NEEDED)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"late.values.steps": 0}, "Setting 'late.values.steps' must be at least 1."),
        ({"late.values.steps": "many"}, "Setting 'late.values.steps' is 'many'. It must be a whole number."),
        ({"early": {"values": {"rate": True}}}, "Setting 'early.values.rate' is True. It must be a number."),
        (
            {"late": 3},
            "'late' is a table of settings. Set one of late.layers, late.values.steps, late.values.rate.",
        ),
        ({"late.values.stesp": 3}, "no setting 'late.values.stesp'. Did you mean 'late.values.steps'?"),
        ({"late.steps": 3}, "no setting 'late.steps'. Did you mean 'late.values.steps'?"),
        ({"rate": 3}, "Did you mean 'late.values.rate'?"),
        ({"label": {"x": 3}}, "no setting 'label.x'. Did you mean 'label'?"),
    ],
)
def test_a_refusal_names_the_path(given: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build(Two, NEEDED, given)
    assert message in str(caught.value)


def test_a_missing_setting_is_named_by_its_path() -> None:
    with pytest.raises(SettingsError, match=r"Setting 'late\.values\.steps' has no value"):
        build(Two, {"early": NEEDED["early"], "late": {"layers": 2}})


def test_the_command_line_names_paths() -> None:
    words = ["late.values.learning-rate=0.1", "late.solve.covariance_weight=30"]
    assert parse_assignments(words) == {
        "late.values.learning_rate": 0.1,
        "late.solve.covariance_weight": 30,
    }


# --- old names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "old", "new"),
    [
        ("memit", "covariance_weight", "'solve.covariance_weight'"),
        ("memit", "optimise", "'values.optimize'"),
        ("memit", "spread", "'spread.share'"),
        ("memit", "key_average", "'keys.average'"),
        ("memit", "preserve_keys", "'keys.preserve'"),
        ("alphaedit", "null_threshold", "'solve.threshold'"),
        ("alphaedit", "ridge", "'solve.ridge'"),
        ("rome", "key", "'solve.key'"),
        ("two_site", "layers", "'early.layers'"),
        ("two_site", "steps", "'early.values.steps'"),
        ("two_site", "late_steps", "'late.values.steps'"),
        ("two_site", "late_key_templates", "'late.keys.templates'"),
        ("two_site", "covariance_ridge", "'early.solve.covariance_ridge' and 'late.solve.covariance_ridge'"),
        ("two_site", "decay", "'early.values.decay' and 'late.values.decay'"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(method: str, old: str, new: str) -> None:
    with pytest.raises(UnknownSetting) as caught:
        build(METHODS[method].settings, load_presets(method).presets[0].values, {old: 1})
    assert str(caught.value) == f"Setting {old!r} is now {new}."


def test_several_old_names_are_refused_together() -> None:
    with pytest.raises(
        UnknownSetting, match=r"'steps' is now 'values\.steps'\. Setting 'spread' is now 'spread"
    ):
        build(METHODS["memit"].settings, {"steps": 3, "spread": "even"})


def test_what_was_no_setting_of_a_method_has_no_new_name() -> None:
    assert new_names("null_threshold", ["solve.covariance_weight"]) == []
    assert new_names("late_decay", ["early.values.decay", "late.values.decay"]) == []
    assert new_names("learning_rate", ["learning_rate"]) == []


# --- presets are what they were ----------------------------------------------------------------------


def shares(**by_site: float) -> dict[str, object]:
    """The realized share in place of lambda, by site."""
    prefixes = {"" if name == "only" else f"{name}.": share for name, share in by_site.items()}
    return {
        f"{prefix}solve.{name}": value
        for prefix, share in prefixes.items()
        for name, value in (("realised_share", share), ("covariance_weight", None))
    }


BY_RULE_SINCE: dict[str, dict[str, object]] = {
    "pmet": shares(only=0.8),
    "memit": shares(only=0.8)
    | {
        "values.steps": 20,
        "values.learning_rate": None,
        "values.learning_rate_scale": 0.18,
        "values.optimizer": "gradient",
        "values.clamp": 2.0,
        "values.kl_weight": 0.0,
        "values.stop_probability": 0.8,
        "values.context_tokens": 28,
        "keys.average": "plain",
    },
    "two_site": shares(early=0.5, late=0.8),
    "alphaedit": {
        "solve.realised_share": 0.8,
        "solve.ridge": None,
        "solve.null_share": 0.3,
        "solve.threshold": None,
    },
}
"""What a model without a preset gets since then: shares, where it got the numbers of GPT-J and Llama-3; MEMIT, more."""


def composed(row: Mapping[str, Any]) -> dict[str, object]:
    """The recorded flat settings by their new names."""
    if "sites" in row:
        return {
            f"{site}.{NEW_NAMES[name]}": value
            for site, settings in row["sites"].items()
            for name, value in settings.items()
        }
    if row["method"] in FLAT:
        return row["settings"]
    named = {NEW_NAMES[name]: value for name, value in row["settings"].items()}
    return {**named, **(ROMES_AVERAGE if row["method"] == "rome" else {})}


@pytest.mark.parametrize(
    "row", RECORDED, ids=lambda row: f"{row['method']}-{row['preset']}-{row['model']}-{row['blocks']}"
)
def test_a_preset_is_worth_what_it_was(row: dict[str, Any]) -> None:
    preset = load_presets(row["method"]).for_model(row["model"], row["blocks"], row["preset"])
    settings = flatten(build(METHODS[row["method"]].settings, preset.values))
    recorded = composed(row)
    if row["preset"] is None:
        recorded |= BY_RULE_SINCE.get(row["method"], {})
    newer = {name: value for name, value in settings.items() if name not in recorded}
    assert set(newer.values()) <= {None, False, "adam"}, "no later setting changes what was recorded"
    assert json.loads(json.dumps(settings)) == {**recorded, **newer}


def test_every_preset_was_recorded() -> None:
    recorded = {(row["method"], row["preset"]) for row in RECORDED}
    presets = [(name, one.name) for name in METHODS for one in load_presets(name).presets]
    assert {*presets, *((name, None) for name in METHODS)} == recorded


def test_every_old_name_has_a_new_one() -> None:
    names = {name for row in RECORDED if row["method"] not in FLAT for name in row.get("settings", {})}
    assert names == set(NEW_NAMES)
    assert set(NEW_NAMES) >= LATE_NAMES
    assert not any(name.startswith(LATE) for name in NEW_NAMES)


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_says_what_it_does(method: str) -> None:
    for one in settings_of(METHODS[method].settings):
        assert one.help.endswith("."), one.name
        assert len(one.help) < 110, one.name


@pytest.mark.parametrize("method", METHODS)
def test_the_paths_of_a_method_are_those_of_its_sites(method: str) -> None:
    """A method that optimizes values has sites, and the blocks that it writes are theirs."""
    row = METHODS[method]
    settings = build(row.settings, load_presets(method).for_model("someone/new-model", 32).values)
    sites = row.sites(settings)
    assert row.optimizes_values == bool(sites) == (method not in FLAT)
    if sites:
        assert row.layers(settings) == tuple(layer for site in sites for layer in site.layers)
