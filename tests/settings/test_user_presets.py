"""Presets of the user's own: used without being named, for the weights that they were made for and no others."""

import logging
from pathlib import Path

import pytest

from errata.errors import SettingsError, UnknownSetting
from errata.settings import CALIBRATED, DEFAULT, load_presets, presets_root, user_preset_path

WEIGHTS = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32
TEXT = """
name = "calibrated"
source = "calibrated on 2026-01-02 with 7 facts"
models = ["My-Model"]
fingerprint = "{weights}"

[calibration]
facts = 7

[memit]
layers = "2-3"
values.clamp = 1.25
"""


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path))


def write(weights: str = WEIGHTS, method: str = "memit") -> Path:
    path = user_preset_path(method, "folder/my-model", weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEXT.format(weights=weights))
    return path


def values(preset: str | None = None, weights: str = WEIGHTS, method: str = "memit") -> tuple[str, object]:
    found = load_presets(method).for_model("elsewhere/my-model", 12, preset, lambda: weights)
    return found.name, found.values["layers"]


def test_it_is_found_by_itself_and_by_its_name() -> None:
    path = write()
    assert path.parent == presets_root()
    for named in (None, CALIBRATED, str(path)):
        assert values(named) == ("calibrated", "2-3")
    found = load_presets("memit").for_model("my-model", 12, None, lambda: WEIGHTS)
    assert found.source == "calibrated on 2026-01-02 with 7 facts"
    assert (found.values["values.clamp"], found.values["values.steps"]) == (1.25, 20)


def test_default_names_what_the_model_has_without_it() -> None:
    write()
    assert values(DEFAULT)[0] == "rule"
    assert load_presets("memit").for_model("gpt-j-6b", 28, DEFAULT).name == "gpt-j"


def test_another_method_and_a_caller_without_weights_do_not_see_it() -> None:
    write()
    assert values(method="pmet")[0] == "rule"
    assert load_presets("memit").for_model("my-model", 12).name == "rule"


def test_other_weights_under_the_same_name_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    path = write()
    with caplog.at_level(logging.WARNING):
        assert values(weights=OTHER)[0] == "rule"
    assert "other weights" in caplog.text
    with pytest.raises(UnknownSetting, match="errata calibrate"):
        values(CALIBRATED, weights=OTHER)
    with pytest.raises(SettingsError, match="other weights"):
        values(str(path), weights=OTHER)


def test_a_file_that_was_copied_to_other_weights_or_damaged_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    write().rename(user_preset_path("memit", "my-model", OTHER))
    with caplog.at_level(logging.WARNING):
        assert values(weights=OTHER)[0] == "rule"
    assert "is not used" in caplog.text
    write().write_text("layers = [")
    assert values()[0] == "rule"


def test_without_a_file_the_weights_are_not_measured() -> None:
    def never() -> str:
        raise AssertionError("measured for nothing")

    assert load_presets("memit").for_model("my-model", 12, None, never).name == "rule"
