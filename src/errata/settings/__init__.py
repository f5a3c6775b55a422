"""The settings of methods: how they are built from presets and from what the user sets, and checked. No torch."""

from errata.settings.layer_rules import layers_by_rule
from errata.settings.schema import Preset, Presets, build, load_presets, parse_assignments

__all__ = ["Preset", "Presets", "build", "layers_by_rule", "load_presets", "parse_assignments"]
