"""Presets of the user's own that are used without being named: what `errata calibrate` found for a model.

One TOML file (see `preset_files`) for each method and model, in the user's folder of presets. It belongs to weights,
not to a name: it holds the fingerprint of the model that it was measured on, and is used for that model only.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import platformdirs

from errata.errors import ErrataError
from errata.runtime import CACHE_VARIABLE, cache_root
from errata.settings.preset_files import SUFFIX, PresetFile, short_name

logger = logging.getLogger(__name__)

CALIBRATED = "calibrated"
"""The name of such a preset."""
DEFAULT = "default"
"""Names what a model has without one: its published preset, or else the rule."""
Fingerprint = Callable[[], str]
"""Measures the weights of the unedited model; called only where there is a file for a model of that name."""


def presets_root() -> Path:
    """The user's folder of presets; below $ERRATA_CACHE where that is set, as everything else."""
    if os.environ.get(CACHE_VARIABLE):
        return cache_root() / "presets"
    return Path(platformdirs.user_config_dir("errata")) / "presets"


def user_preset_path(method: str, model: str, fingerprint: str) -> Path:
    """Where the preset of a method for these weights lies, or would."""
    return presets_root() / f"{_stem(method, model)}-{fingerprint[:12]}{SUFFIX}"


def find_user_preset(
    method: str, model: str, fingerprint: Fingerprint, read: Callable[[Path], PresetFile]
) -> PresetFile | None:
    """The user's preset for these weights, if there is one; `read` reads a file.

    Files for other weights under the same name, and files that cannot be used, are left alone with a warning.
    """
    files = sorted(presets_root().glob(f"{_stem(method, model)}-*{SUFFIX}"))
    if not files:
        return None
    weights = fingerprint()
    path = user_preset_path(method, model, weights)
    if path not in files:
        logger.warning(
            "%s was calibrated for other weights than those of %r, so it is not used. `errata calibrate` makes a "
            "preset for this model.",
            files[0],
            model,
        )
        return None
    try:
        found = read(path)
        found.check_model(model, weights)
    except ErrataError as error:
        logger.warning("The preset of your own in %s is not used: %s", path, error)
        return None
    return found


def _stem(method: str, model: str) -> str:
    """The model and the method in characters that every file system takes and no pattern means."""
    return f"{re.sub(r'[^a-z0-9_.]+', '_', short_name(model))[:60]}-{method}"
