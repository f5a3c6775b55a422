"""The registry of methods, and the settings that each is run with.

A new method is one file beside this one, one TOML in `presets/`, and one line in `METHODS`: docs/add-a-method.md.
"""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from errata.errors import SettingsError, UnknownSetting
from errata.methods import alphaedit, finetune, memit, pmet, rome, two_site
from errata.methods.base import BLOCK, FFN, Method
from errata.methods.mend import METHOD as MEND
from errata.models import EditableModel
from errata.settings import SUFFIX, Preset, build, dotted, load_presets

logger = logging.getLogger(__name__)

AT_ONCE = 256
"""Facts whose texts are looked at together."""

METHODS: dict[str, Method[Any]] = {
    row.name: row
    for row in (
        pmet.METHOD,
        memit.METHOD,
        two_site.METHOD,
        alphaedit.METHOD,
        rome.METHOD,
        finetune.METHOD,
        MEND,
    )
}


def method_named(name: str) -> Method[Any]:
    """The registry's row of that name.

    Raises:
        UnknownSetting: there is none.
    """
    if name in METHODS:
        return METHODS[name]
    close = difflib.get_close_matches(name, METHODS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownSetting(f"There is no method {name!r}.{hint} Known methods: {', '.join(METHODS)}.")


def settings_for(
    model: EditableModel, method: str, given: Mapping[str, object], preset: str | None = None
) -> tuple[Any, Preset]:
    """The settings of a run: the preset that fits the model (or is named), and over it what is given.

    A calibrated preset of the user for these weights fits best.

    Raises:
        UnknownSetting, SettingsError: as `errata.settings` tells.
    """
    presets = load_presets(method).among(model.editable_layers)
    found = presets.for_model(model.name, model.layers, preset, lambda: model.fingerprint)
    if found.rule is not None and not found.by_rule <= dotted(given).keys():
        logger.warning("%s", found.rule)
    settings = method_named(method).settings
    if preset is not None and preset.endswith(SUFFIX):
        _check_file(preset, settings, found)
    found = fitting_preset(model, found, dotted(given))
    return build(settings, found.values, given), found


def fitting_preset(model: EditableModel, preset: Preset, given: Mapping[str, object]) -> Preset:
    """The preset with MEMIT's value at the down projection where the family normalizes the FFN's output.

    A place that somebody gives stays, and is refused with the reason.
    """
    if all(model.ffn_factor(layer) is not None for layer in model.editable_layers):
        return preset
    moved = [
        name
        for name, value in preset.values.items()
        if name.endswith("values.optimize") and value in (BLOCK, list(BLOCK)) and name not in given
    ]
    return replace(
        preset,
        values={**preset.values, **dict.fromkeys(moved, FFN)},
        by_rule=preset.by_rule | frozenset(moved),
    )


def _check_file(file: str, settings: type[Any], preset: Preset) -> None:
    """Raise where a file of presets sets what the method does not have, or to what it cannot be.

    Raises:
        UnknownSetting, SettingsError: naming the file.
    """
    try:
        build(settings, preset.values)
    except (UnknownSetting, SettingsError) as error:
        raise type(error)(f"{file}: {error}") from None
