"""The presets of the methods, `presets/<method>.toml`, and the rules for a model that has none."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from errata.errors import UnknownSetting
from errata.settings.alternatives import overlaid
from errata.settings.layer_rules import LAYER_RULES
from errata.settings.preset_files import SUFFIX, PresetFile, read_preset_file, short_name
from errata.settings.schema import dotted, unknown
from errata.settings.user_presets import CALIBRATED, DEFAULT, Fingerprint, find_user_preset

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS = Path(__file__).parent / "presets"
DEFAULT_METHOD = "memit"
"""The method where none is named: on the command line, in Python, on the page and in the demo."""
SEVERAL = {"layers": "several"}
"""The layer rules of a file that names none."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The values that a method is run with on a model, and where they come from; without layers, a rule adds them."""

    name: str
    models: tuple[str, ...]
    values: Mapping[str, object]
    """By the paths of the settings."""
    source: str
    rule: str | None = None
    """Where a rule chose something: the sentence that names the rule and its choice, to be logged as a warning."""
    by_rule: frozenset[str] = frozenset()
    """The settings that a rule chose."""

    def is_for(self, model: str) -> bool:
        """Whether the model is among those that it is for."""
        return short_name(model) in map(short_name, self.models)


@dataclass(frozen=True, kw_only=True)
class Presets:
    """All presets of one method: `presets/<method>.toml`."""

    method: str
    defaults: Mapping[str, object]
    """By the paths of the settings."""
    source: str
    presets: tuple[Preset, ...]
    rule: Mapping[str, object] = field(default_factory=dict[str, object])
    """What a model without a preset has instead of the defaults, by the paths of the settings."""
    rule_source: str = ""
    layer_rules: Mapping[str, str] = field(default_factory=lambda: SEVERAL)
    """Which of `LAYER_RULES` chooses the layers of a model without a preset, by the path of the setting."""

    editable: tuple[int, ...] | None = None
    """The blocks among which a rule chooses; None: all."""

    def among(self, editable: Sequence[int]) -> "Presets":
        """The same for a model in which only these blocks can be edited."""
        return replace(self, editable=tuple(editable))

    def for_model(
        self, name: str, layer_count: int, preset: str | None = None, fingerprint: Fingerprint | None = None
    ) -> Preset:
        """The preset of that name; without a name the first one of the model; for a model without one, the rule.

        With a `fingerprint` of the model, a calibrated preset of the user for these weights goes before all others;
        "calibrated" names it, and "default" what the model has without it.

        The rule also chooses the layers where a preset that is named leaves them out. A model is known by the last
        part of its id or folder in lower case: `Almanac` and `models/almanac` are one. A `preset` that ends in .toml is
        a file (`errata.settings.preset_files`), whose values go over those of the preset without a name.

        Raises:
            UnknownSetting: the method has no preset named `preset`.
            SettingsError: the file of presets cannot be read, or is for other weights.
        """
        base = self._published(name, layer_count)
        if preset is not None and preset.endswith(SUFFIX):
            read = self._read(Path(preset))
            read.check_model(name, fingerprint() if fingerprint and read.fingerprint else None)
            return _over(base, read, preset)
        own = None
        if preset in (None, CALIBRATED) and fingerprint is not None:
            own = find_user_preset(self.method, name, fingerprint, self._read)
        if own is not None:
            return _over(base, own, own.name)
        if preset is not None and preset != DEFAULT:
            return self._with_layers(self.named(preset, name), name, layer_count)
        return base

    def _published(self, name: str, layer_count: int) -> Preset:
        """What the model has without a preset of the user's own."""
        for candidate in self.presets:
            if candidate.is_for(name):
                return candidate
        return self._by_rule(name, layer_count)

    def publishes(self, preset: Preset) -> bool:
        """Whether a preset is one of those that ship, and neither the rule's nor the user's own."""
        return preset.name in {one.name for one in self.presets}

    def named(self, preset: str, model: str = "") -> Preset:
        """The preset of that name; of several, the one for the model, or else the first.

        Raises:
            UnknownSetting: there is none.
        """
        rows = [candidate for candidate in self.presets if candidate.name == preset]
        if not rows and preset == CALIBRATED:
            raise UnknownSetting(
                f"There is no calibrated preset of {self.method} for the model {model!r}. `errata calibrate MODEL "
                f"--method {self.method}` makes one."
            )
        if not rows:
            names = dict.fromkeys(candidate.name for candidate in self.presets)
            raise UnknownSetting(unknown(f"{self.method} preset", preset, names))
        return next((row for row in rows if row.is_for(model)), rows[0])

    def _with_layers(self, preset: Preset, name: str, layer_count: int) -> Preset:
        """The preset with the rules' layers where it has none of its own."""
        missing = [setting for setting in self.layer_rules if setting not in preset.values]
        if not missing:
            return preset
        layers = self._layers(missing, layer_count)
        rule = (
            f"The {self.method} preset {preset.name!r} names no layers for the model {name!r}, so a rule chose them: "
            f"{self._choices(layers, layer_count)} Set {' and '.join(map(repr, missing))} where others are better."
        )
        return replace(preset, values={**preset.values, **layers}, rule=rule, by_rule=frozenset(missing))

    def _read(self, path: Path) -> PresetFile:
        return read_preset_file(path, self.method, method_names(), tables_of_settings())

    def _by_rule(self, name: str, layer_count: int) -> Preset:
        layers = self._layers(self.layer_rules, layer_count)
        values = {**overlaid(self.defaults, self.rule), **layers}
        *others, last = [setting for setting in values if _matters(setting)]
        most = f"{', '.join(others)} and {last} matter" if others else f"{last} matters"
        rule = (
            f"No {self.method} preset knows the model {name!r}, so a rule chose its settings. "
            f"{self._choices(layers, layer_count)} All else is from presets/{self.method}.toml. `errata calibrate "
            f"{name} --method {self.method}` tries others on the model itself; {most} most."
        )
        return Preset(
            name="rule",
            models=(name,),
            values=values,
            source=self.rule_source or self.source,
            rule=rule,
            by_rule=frozenset(values),
        )

    def _layers(
        self, settings: Sequence[str] | Mapping[str, str], layer_count: int
    ) -> dict[str, Sequence[int]]:
        """What the rules choose for these settings."""
        blocks = range(layer_count) if self.editable is None else self.editable
        chosen = {name: LAYER_RULES[self.layer_rules[name]].choose(len(blocks)) for name in settings}
        return {name: tuple(blocks[number] for number in numbers) for name, numbers in chosen.items()}

    def _choices(self, layers: Mapping[str, Sequence[int]], layer_count: int) -> str:
        """A sentence for each choice: `Layers: 4-8 of 32 blocks (five consecutive ...).`"""
        return " ".join(
            f"{name.replace('.', ' ').capitalize()}: {_span(chosen)} of {layer_count} blocks "
            f"({LAYER_RULES[self.layer_rules[name]].words})."
            for name, chosen in layers.items()
        )


def _over(base: Preset, read: PresetFile, where: str) -> Preset:
    """The preset with the values of a file over its own; a rule is mentioned only where it chose something still."""
    by_rule = base.by_rule.difference(read.values)
    return replace(
        base,
        name=read.name,
        source=read.source,
        values=overlaid(base.values, read.values),
        rule=None if base.rule is None else f"For what {where} leaves out: {base.rule}",
        by_rule=by_rule,
    )


MATTER_MOST = (
    "layers",
    "solve.covariance_weight",
    "solve.realised_share",
    "solve.threshold",
    "solve.null_share",
    "solve.ridge",
    "learning_rate",
    "values.learning_rate",
    "values.learning_rate_scale",
    "values.clamp",
)
"""Of the settings that a method has, at each of its sites."""


def _matters(setting: str) -> bool:
    return any(f".{setting}".endswith(f".{one}") for one in MATTER_MOST)


def _span(layers: Sequence[int]) -> str:
    """3-8, or block 5."""
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else f"block {layers[0]}"


def method_names() -> tuple[str, ...]:
    """The methods that have presets."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def tables_of_settings() -> frozenset[str]:
    """The tables that the settings of some method have: values, keys, early, ..."""
    return frozenset(
        name
        for method in method_names()
        for name, value in _read(method)["defaults"].items()
        if _is_table(value)
    )


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def load_presets(method: str) -> Presets:
    """Read `presets/<method>.toml`.

    The file: `layer_rules`, unless they are `{ layers = "several" }`; tables `[defaults]` with a `source`,
    `[defaults.values]` and so on; `[rule]`, where a model without a preset is to have other values than those; and one
    `[[preset]]` for each published row, with its `name`, the `models` it is for, its `source`, and the settings in
    which it differs from the defaults (`values.steps = 30`). Rows of one name are one preset, with values for some
    models in particular; a row for no model is the one for all others.

    Raises:
        UnknownSetting: there is no such file; the message lists those there are.
    """
    if not (PRESETS / f"{method}.toml").is_file():
        raise UnknownSetting(unknown("file of presets for method", method, method_names()))
    table = _read(method)
    defaults = dotted(table["defaults"])
    source = str(defaults.pop("source"))
    rule = dotted(table.get("rule", {}))
    rule_source = str(rule.pop("source", ""))
    return Presets(
        method=method,
        defaults=defaults,
        source=source,
        presets=tuple(_preset(row, defaults) for row in table["preset"]),
        layer_rules=table.get("layer_rules", SEVERAL),
        rule=rule,
        rule_source=rule_source,
    )


def _read(method: str) -> dict[str, Any]:
    return tomllib.loads((PRESETS / f"{method}.toml").read_text(encoding="utf-8"))


def _preset(row: Mapping[str, Any], defaults: Mapping[str, object]) -> Preset:
    own = dotted({name: value for name, value in row.items() if name not in ("name", "models", "source")})
    return Preset(
        name=row["name"], models=tuple(row["models"]), values=overlaid(defaults, own), source=row["source"]
    )
