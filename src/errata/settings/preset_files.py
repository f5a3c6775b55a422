"""Presets in a file of the user's own, as `--preset FILE.toml` takes them, `errata locate` and `calibrate` write them.

    name = "critical-layers"        # optional, as all of these: the name of the file stands in
    source = "causal tracing of 100 facts"
    models = ["my-org/my-model"]
    fingerprint = "3f0c..."         # of the weights that it is for, where it is for no others
    layers = "3-8"                  # any settings of the method
    values.steps = 30
    [solve]                         # or a table of them
    covariance_weight = 4000
    [rome]                          # what is different for one method
    layers = "5"
    [calibration]                   # for people: how the values were found; nothing in it is a setting

What the file leaves out comes from the preset that the model would have had without it.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from errata.errors import SettingsError, UnknownSetting
from errata.settings.schema import dotted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".toml"
"""A preset whose name ends so is a file."""
ABOUT = "calibration"
"""The table of a file that says how its values were found, and holds no settings."""


@dataclass(frozen=True, kw_only=True)
class PresetFile:
    """What a file says for one method."""

    name: str
    source: str
    models: tuple[str, ...]
    values: Mapping[str, object]
    """By the paths of the settings."""
    fingerprint: str | None = None
    """Of the weights that the values were measured on; None where any model of that name will do."""

    def check_model(self, model: str, fingerprint: str | None = None) -> None:
        """Raise unless the file is for that model, or for every one; `fingerprint` is of its weights, if known.

        Raises:
            SettingsError: it names others, or was made for other weights.
        """
        if self.models and short_name(model) not in map(short_name, self.models):
            raise SettingsError(
                f"The preset {self.name!r} is for {', '.join(self.models)}, and the model is {model!r}. Other models "
                "keep facts in other layers; take the line 'models' out of the file to use it all the same."
            )
        if None not in (self.fingerprint, fingerprint) and self.fingerprint != fingerprint:
            raise SettingsError(
                f"The preset {self.name!r} was calibrated for a model {model!r} with other weights. Calibrate this one "
                "(`errata calibrate`), or take the line 'fingerprint' out of the file to use it all the same."
            )


def short_name(model: str) -> str:
    """The last part of a model's id or path, in lower case."""
    return re.split(r"[/\\]", model.rstrip("/\\"))[-1].lower()


def read_preset_file(
    path: Path, method: str, methods: Collection[str], tables: Collection[str]
) -> PresetFile:
    """Read a file of presets for one of `methods`, whose settings may stand in `tables`.

    Raises:
        SettingsError: there is no such file, or it is not in the form above.
        UnknownSetting: a table is for a method that there is not.
    """
    table = _read(path)
    own = {name: cast("dict[str, object]", value) for name, value in table.items() if isinstance(value, dict)}
    own.pop(ABOUT, None)
    for name in own.keys() - {*methods, *tables}:
        close = difflib.get_close_matches(name, [*methods, *tables], n=1)
        hint = f" Did you mean [{close[0]}]?" if close else ""
        raise UnknownSetting(
            f"{path} has a table [{name}], and there is no such method or table of settings.{hint}"
        )
    values = {
        name: value for name, value in table.items() if name != ABOUT and name not in own.keys() & methods
    }
    title, source, models, weights = (
        values.pop("name", path.stem),
        values.pop("source", str(path)),
        values.pop("models", []),
        values.pop("fingerprint", None),
    )
    if not (isinstance(title, str) and isinstance(source, str) and isinstance(weights, str | None)):
        raise SettingsError(f"{path}: name, source and fingerprint must be texts in quotes.")
    named = cast("list[object]", models) if isinstance(models, list) else [None]
    if not all(isinstance(model, str) for model in named):
        raise SettingsError(f'{path}: models must be a list of texts: models = ["my-org/my-model"].')
    return PresetFile(
        name=title,
        source=source,
        models=tuple(map(str, named)),
        values={**dotted(values), **dotted(own.get(method, {}))},
        fingerprint=weights,
    )


def _read(path: Path) -> dict[str, object]:
    """The tables of the file.

    Raises:
        SettingsError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"There is no file of presets {path}. `errata locate` writes one.") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"The preset cannot be read from {path}: {error}.") from error
