"""A preset in a file of the user's own: over the model's, a table for one method, refused with a reason."""

from pathlib import Path

import pytest

from cli_world import failed, run, the_world
from errata.errors import SettingsError, UnknownSetting
from errata.settings.method_presets import load_presets

TEXT = """
source = "traced"
layers = "3-5"
values.decay = 0.25
[solve]
covariance_ridge = 0.5
[rome]
layers = "4"
values.steps = 7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


def test_its_values_go_over_the_models_own(file: Path) -> None:
    presets = load_presets("pmet")
    own, found = presets.for_model("almanac", 10), presets.for_model("almanac", 10, str(file))
    assert found.values == {
        **own.values,
        "layers": "3-5",
        "values.decay": 0.25,
        "solve.covariance_ridge": 0.5,
    }
    assert (found.name, found.source) == ("mine", "traced")


def test_a_table_is_for_one_method(file: Path) -> None:
    values = load_presets("rome").for_model("almanac", 10, str(file)).values
    assert (values["layers"], values["values.steps"], values["values.decay"]) == ("4", 7, 0.25)


def test_what_a_rule_chose_is_told_except_what_the_file_sets(file: Path) -> None:
    found = load_presets("pmet").for_model("nobody/knows", 32, str(file))
    assert "layers" not in found.by_rule
    assert "values.clamp" in found.by_rule
    assert found.rule is not None
    assert str(file) in found.rule


def test_it_is_for_the_models_that_it_names(file: Path) -> None:
    file.write_text('models = ["my-org/almanac"]\n' + TEXT)
    assert load_presets("pmet").for_model("almanac", 10, str(file)).values["layers"] == "3-5"
    with pytest.raises(SettingsError, match="is for my-org/almanac, and the model is 'other'"):
        load_presets("pmet").for_model("other", 10, str(file))


@pytest.mark.parametrize(
    ("text", "kind", "word"),
    [
        ("layers = ", SettingsError, "cannot be read"),
        ("[rmoe]\nlayers = 3", UnknownSetting, r"Did you mean \[rome\]"),
        ("[valeus]\nsteps = 3", UnknownSetting, r"Did you mean \[values\]"),
        ("name = 3", SettingsError, "must be texts"),
        ('models = "almanac"', SettingsError, "list of texts"),
    ],
)
def test_what_is_wrong_is_named(file: Path, text: str, kind: type[Exception], word: str) -> None:
    file.write_text(text)
    with pytest.raises(kind, match=word):
        load_presets("pmet").for_model("almanac", 10, str(file))


def test_the_command_line_takes_it(tmp_path: Path) -> None:
    world, file, out = the_world(), tmp_path / "mine.toml", tmp_path / "edit"
    file.write_text('layers = "1-2"\nvalues.steps = 2\n[solve]\ncovariance_weight = 20\n')
    words = ("edit", world.model, "--facts", world.facts, "--method", "pmet")
    words = (*words, "--covariance", world.moments, "--output", out)
    done = run(*words, "--preset", file)
    assert done.exit_code == 0, done.output
    assert '"preset": "mine (' in (out / "edit.json").read_text()
    file.write_text('layers = "1-2"\nsteps = 2\n')
    refusal = "Setting 'steps' is now 'values.steps'."
    assert refusal in failed(*words[:-1], tmp_path / "b", "--preset", file)
    assert "no file of presets" in failed(*words[:-1], tmp_path / "b", "--preset", tmp_path / "none.toml")
