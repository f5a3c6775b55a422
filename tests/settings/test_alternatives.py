"""Of alternatives the one that is set last counts, and nobody has to unset the other."""

from pathlib import Path

import pytest

from errata.errors import SettingsError
from errata.methods import METHODS
from errata.settings.alternatives import ALTERNATIVES, alternatives_to, overlaid
from errata.settings.method_presets import load_presets
from errata.settings.schema import build, settings_of

MODEL = "someone/new-model"


@pytest.mark.parametrize("method", ["pmet", "memit"])
def test_lambda_takes_the_place_of_the_share_and_the_other_way_round(method: str) -> None:
    rule = load_presets(method).for_model(MODEL, 12).values
    assert build(METHODS[method].settings, rule).solve.realised_share == 0.8
    weighted = build(METHODS[method].settings, rule, {"solve": {"covariance_weight": 7}}).solve
    assert (weighted.covariance_weight, weighted.realised_share) == (7.0, None)
    published = load_presets(method).for_model("EleutherAI/gpt-j-6b", 28).values
    shared = build(METHODS[method].settings, published, {"solve.realised_share": 0.4}).solve
    assert (shared.covariance_weight, shared.realised_share) == (None, 0.4)


def test_each_site_has_its_own() -> None:
    rule = load_presets("two_site").for_model(MODEL, 12).values
    settings = build(METHODS["two_site"].settings, rule, {"late.solve.covariance_weight": 7})
    assert settings.early.solve.realised_share == 0.5
    assert (settings.late.solve.covariance_weight, settings.late.solve.realised_share) == (7.0, None)


def test_alphaedit_has_two_pairs() -> None:
    rule = load_presets("alphaedit").for_model(MODEL, 12).values
    solve = build(METHODS["alphaedit"].settings, rule, {"solve.ridge": 3, "solve.threshold": 0.1}).solve
    assert (solve.ridge, solve.realised_share, solve.threshold, solve.null_share) == (3.0, None, 0.1, None)


def test_a_file_of_the_users_own_may_set_either(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('layers = "1-2"\n[solve]\ncovariance_weight = 20\n')
    preset = load_presets("memit").for_model(MODEL, 12, str(file))
    assert build(METHODS["memit"].settings, preset.values).solve.covariance_weight == 20


def test_both_in_one_breath_are_refused() -> None:
    rule = load_presets("memit").for_model(MODEL, 12).values
    both = {"solve.covariance_weight": 1, "solve.realised_share": 0.5}
    with pytest.raises(
        SettingsError, match=r"'solve.covariance_weight' and its alternative 'realised_share'"
    ):
        build(METHODS["memit"].settings, rule, both)
    assert overlaid({"solve.ridge": 1}, {"solve.realised_share": None}) == {
        "solve.ridge": 1,
        "solve.realised_share": None,
    }


def test_every_alternative_is_a_setting_of_some_method() -> None:
    names = {one.name for row in METHODS.values() for one in settings_of(row.settings)}
    for name, others in ALTERNATIVES.items():
        assert {name, *others} <= names
        assert alternatives_to(f"late.{name}") == tuple(f"late.{other}" for other in others)
        assert all(name in ALTERNATIVES[other] for other in others)
