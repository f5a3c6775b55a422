"""Calibrated settings as a file of presets (`errata.settings.preset_files`), and its place among the user's own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast

from errata.calibrate.objective import Measures
from errata.calibrate.request import Calibration
from errata.runtime import atomic_file
from errata.settings import ABOUT, CALIBRATED, alternatives_to, short_name, user_preset_path

HEAD = "# Written by `errata calibrate`. It is used by itself for the model with this fingerprint.\n"


def install_preset(found: Calibration) -> Path:
    """Put the preset where it is found by itself, in place of an earlier one of the same model and method."""
    path = user_preset_path(found.request.method, found.model, found.fingerprint)
    with atomic_file(path) as aside:
        aside.write_text(calibrated_text(found), encoding="utf-8")
    return path


def calibrated_text(found: Calibration) -> str:
    """The file: where its values come from, what was measured, and the settings of the method."""
    lines = [
        f"name = {_toml(CALIBRATED)}",
        f"source = {_toml(found.source)}",
        f"models = {_toml([short_name(found.model)])}",
        f"fingerprint = {_toml(found.fingerprint)}",
        "",
        f"[{ABOUT}]",
        *(f"{name} = {_toml(value)}" for name, value in _about(found).items()),
    ]
    for name, measures in (
        ("unedited", found.held_out.unedited),
        ("as_it_comes", found.held_out.as_it_comes),
        ("calibrated", found.held_out.calibrated),
    ):
        if measures is not None:
            lines += ["", f"[{ABOUT}.held_out.{name}]", *_rows(measures)]
    return "\n".join([HEAD + lines[0], *lines[1:]]) + "\n\n" + preset_text(found.request.method, found.values)


def preset_text(method: str, values: Mapping[str, object]) -> str:
    """The settings of a method as its table of a file of presets; of alternatives the one that has a value."""
    own = {name: value for name, value in values.items() if value is not None or not alternatives_to(name)}
    return f"[{method}]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in own.items())


def _about(found: Calibration) -> dict[str, object]:
    development, held_out = found.counts
    return {
        "date": found.created,
        "seed": found.request.seed,
        "development_facts": development,
        "held_out_facts": held_out,
        "trials": len(found.trials),
        "base": found.base,
    }


def _rows(measures: Measures) -> list[str]:
    return [
        f"{name} = {_toml(_brief(value))}" for name, value in asdict(measures).items() if value is not None
    ]


def _brief(value: float) -> float:
    return round(value, 3) if math.isfinite(value) else value


def _toml(value: object) -> str:
    """A value in TOML, which has no word for None: settings take "none"."""
    if value is None:
        return '"none"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, cast('list[object]', value)))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'-' * (value < 0)}inf"
    return json.dumps(value, ensure_ascii=False)
