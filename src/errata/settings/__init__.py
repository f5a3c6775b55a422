"""The settings of methods: how they are built from presets and from what the user sets, and checked. No torch."""

from errata.settings.alternatives import alternatives_to, overlaid
from errata.settings.layer_rules import RULE_BLOCKS, layers_by_rule
from errata.settings.method_presets import DEFAULT_METHOD, Preset, Presets, load_presets, method_names
from errata.settings.old_names import old_name
from errata.settings.preset_files import ABOUT, SUFFIX, read_preset_file, short_name
from errata.settings.schema import Setting, about, build, dotted, flatten, parse_assignments, settings_of
from errata.settings.user_presets import CALIBRATED, DEFAULT, presets_root, user_preset_path

__all__ = [
    "ABOUT",
    "CALIBRATED",
    "DEFAULT",
    "DEFAULT_METHOD",
    "RULE_BLOCKS",
    "SUFFIX",
    "Preset",
    "Presets",
    "Setting",
    "about",
    "alternatives_to",
    "build",
    "dotted",
    "flatten",
    "layers_by_rule",
    "load_presets",
    "method_names",
    "old_name",
    "overlaid",
    "parse_assignments",
    "presets_root",
    "read_preset_file",
    "settings_of",
    "short_name",
    "user_preset_path",
]
