"""Settings: flat, typed, merged from layers, and refused with a reason when they make no sense.

Each stage declares its settings as a frozen dataclass beside it (`TargetSettings` in `targets.py`, ...); the
settings of a method inherit from those of its stages, so every name is flat. The values come in layers, the later
over the earlier: the preset (`presets/<method>.toml`), then what the user gives (`settings=`, `--set name=value`).
"""

import difflib
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from errata.errors import SettingsError, UnknownSetting
from errata.settings.layer_rules import LAYER_RULES
from errata.settings.preset_files import SUFFIX, read_preset_file, short_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS = Path(__file__).parent / "presets"

_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")

S = TypeVar("S")


# --- building a settings object ------------------------------------------------------------------


def build(cls: type[S], *layers: Mapping[str, object]) -> S:
    """Make the settings object `cls` from layers of values; a later layer wins over an earlier one.

    Whole numbers pass as floats, lists as tuples, and `"3-8"` or `"3-5,9"` as a tuple of whole numbers.

    Raises:
        UnknownSetting: a layer names a setting that `cls` does not have.
        SettingsError: a value has the wrong type, a setting has no value, or `cls` itself refuses the values.
    """
    kinds = get_type_hints(cls)
    known = [field for field in fields(cast(Any, cls)) if field.init]
    merged: dict[str, object] = {}
    for layer in layers:
        merged.update(layer)
    for name in merged:
        if name not in {field.name for field in known}:
            raise UnknownSetting(_unknown("setting", name, [field.name for field in known]))
    for field in known:
        if field.name not in merged and field.default is MISSING and field.default_factory is MISSING:
            raise SettingsError(
                f"Setting {field.name!r} has no value. Give it one: settings={{{field.name!r}: ...}}, "
                f"or --set {field.name}=... on the command line."
            )
    return cls(**{name: _checked(name, value, kinds[name]) for name, value in merged.items()})


def _checked(name: str, value: object, kind: object) -> object:
    try:
        return _convert(value, kind)
    except _Misfit as misfit:
        because = f" ({misfit})" if str(misfit) else ""
        raise SettingsError(
            f"Setting {name!r} is {value!r}{because}. It must be {_expected(kind)}."
        ) from None


class _Misfit(Exception):
    """A value is not of the kind asked for; the text says why where the kind alone does not."""


def _convert(value: object, kind: object) -> object:
    """The value as the type that the annotation `kind` asks for."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _convert_optional(value, options)
    if origin is Literal:
        if any(value == option and type(value) is type(option) for option in options):
            return value
        raise _Misfit
    if origin is tuple:
        return tuple(_convert(entry, options[0]) for entry in _entries(value, options[0]))
    if kind is float and type(value) in (int, float):
        number = float(cast(float, value))
        if math.isnan(number):
            raise _Misfit("not a number")
        return number
    if kind in (int, bool, str) and type(value) is kind:
        return value
    raise _Misfit


def _convert_optional(value: object, options: tuple[object, ...]) -> object:
    """`X | None`; "none" is how the command line says None, as TOML has no word for it."""
    if NoneType in options and value in (None, "none"):
        return None
    for option in options:
        if option is not NoneType:
            try:
                return _convert(value, option)
            except _Misfit:
                continue
    raise _Misfit


def _entries(value: object, kind: object) -> list[object]:
    """What a tuple of `kind` is made from: a list, a range in words, or one lone entry."""
    if isinstance(value, (list, tuple)):
        return list(cast("list[object] | tuple[object, ...]", value))
    if isinstance(value, str) and kind is int:
        return list(_whole_numbers(value))
    if isinstance(value, str) and get_origin(kind) is Literal:
        return [part.strip() for part in value.split(",")]
    return [value]


def _whole_numbers(text: str) -> Iterable[int]:
    """3, 4, 5, 9 from `"3-5,9"`."""
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise _Misfit(f"{part.strip()!r} is neither a number nor a range")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise _Misfit(f"the range {part.strip()!r} runs backwards")
        numbers.extend(range(first, last + 1))
    return numbers


def _expected(kind: object) -> str:
    """The annotation in words."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_expected(option) for option in options)
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in options)
    if origin is tuple:
        range_too = ', or a range such as "3-8"' if options[0] is int else ""
        return f"a list, each entry {_expected(options[0])}{range_too}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "none"}
    return words[cast(type, kind)]


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no {what} {name!r}.{hint} Known: {', '.join(names) or 'none'}."


# --- what the command line gives -------------------------------------------------------------------


def parse_assignments(assignments: Iterable[str]) -> dict[str, object]:
    """Settings from `name=value` words: the TOML value where it is one (`0.5`, `true`, `[3, 4]`), else the text.

    Raises:
        SettingsError: a word without a name or without `=`.
    """
    values: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not (name and equals):
            raise SettingsError(
                f"{assignment!r} does not set anything. Write name=value, for example steps=25."
            )
        values[name] = _toml_value(text.strip())
    return values


def _toml_value(text: str) -> object:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


# --- presets ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The values that a method is run with on a model, and where they come from; without `layers`, a rule adds them."""

    name: str
    models: tuple[str, ...]
    values: Mapping[str, object]
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
    source: str
    presets: tuple[Preset, ...]
    layer_rule: str = "several"
    """Which of `LAYER_RULES` chooses the layers of a model without a preset."""
    late_layer_rule: str | None = None
    """The same for `late_layers`, where the method has them."""

    def for_model(self, name: str, layer_count: int, preset: str | None = None) -> Preset:
        """The preset of that name; without a name the first one of the model; for a model without one, the rule.

        The rule also chooses the layers where a preset that is named leaves them out. A model is known by the last
        part of its id or folder in lower case: `Almanac` and `models/almanac` are one. A `preset` that ends in .toml is
        a file (`errata.preset_files`), whose values go over those of the preset without a name.

        Raises:
            UnknownSetting: the method has no preset named `preset`.
            SettingsError: the file of presets cannot be read.
        """
        if preset is not None and preset.endswith(SUFFIX):
            return self._from_file(Path(preset), self.for_model(name, layer_count), name)
        if preset is not None:
            return self._with_layers(self.named(preset, name), name, layer_count)
        for candidate in self.presets:
            if candidate.is_for(name):
                return candidate
        return self._by_rule(name, layer_count)

    def named(self, preset: str, model: str = "") -> Preset:
        """The preset of that name; of several, the one for the model, or else the first.

        Raises:
            UnknownSetting: there is none.
        """
        rows = [candidate for candidate in self.presets if candidate.name == preset]
        if not rows:
            names = dict.fromkeys(candidate.name for candidate in self.presets)
            raise UnknownSetting(_unknown(f"{self.method} preset", preset, names))
        return next((row for row in rows if row.is_for(model)), rows[0])

    def _with_layers(self, preset: Preset, name: str, layer_count: int) -> Preset:
        """The preset with the rule's layers where it has none of its own."""
        if "layers" in preset.values:
            return preset
        layer_rule = LAYER_RULES[self.layer_rule]
        layers = layer_rule.choose(layer_count)
        rule = (
            f"The {self.method} preset {preset.name!r} names no layers for the model {name!r}, so a rule chose them: "
            f"{_span(layers)} of {layer_count} blocks ({layer_rule.words}). Set 'layers' where others are better."
        )
        values = {**preset.values, "layers": layers}
        return replace(preset, values=values, rule=rule, by_rule=frozenset(["layers"]))

    def _from_file(self, path: Path, base: Preset, model: str) -> Preset:
        read = read_preset_file(path, self.method, {file.stem for file in PRESETS.glob("*.toml")})
        read.check_model(model)
        return replace(
            base,
            name=read.name,
            source=read.source,
            values={**base.values, **read.values},
            rule=None if base.rule is None else f"For what {path} leaves out: {base.rule}",
            by_rule=base.by_rule.difference(read.values),
        )

    def _by_rule(self, name: str, layer_count: int) -> Preset:
        layer_rule = LAYER_RULES[self.layer_rule]
        layers = layer_rule.choose(layer_count)
        values = {**self.defaults, "layers": layers}
        late = ""
        if self.late_layer_rule is not None:
            late_rule = LAYER_RULES[self.late_layer_rule]
            values["late_layers"] = late_layers = late_rule.choose(layer_count)
            late = f" Late layers: {_span(late_layers)} ({late_rule.words})."
        *others, last = [setting for setting in MATTER_MOST if setting in values]
        most = f"{', '.join(others)} and {last} matter" if others else f"{last} matters"
        rule = (
            f"No {self.method} preset knows the model {name!r}, so a rule chose its settings. Layers: "
            f"{_span(layers)} of {layer_count} blocks ({layer_rule.words}).{late} All else: the defaults in "
            f"presets/{self.method}.toml. Better values can be set one by one ({most} "
            "most) or taken from a preset of a similar model: "
            f"{', '.join(dict.fromkeys(candidate.name for candidate in self.presets))}."
        )
        return Preset(
            name="rule",
            models=(name,),
            values=values,
            source=self.source,
            rule=rule,
            by_rule=frozenset(values),
        )


MATTER_MOST = ("layers", "covariance_weight", "null_threshold", "ridge", "learning_rate", "clamp")
"""Of the settings that a method has."""


def _span(layers: Sequence[int]) -> str:
    """3-8, or block 5."""
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else f"block {layers[0]}"


def load_presets(method: str) -> Presets:
    """Read `presets/<method>.toml`.

    The file: `layer_rule`, unless it is "several", and `late_layer_rule` where there are late layers; a table
    `[defaults]` with a `source`; and one `[[preset]]` for each published row, with its `name`, the `models` it is for,
    its `source`, and the settings in which it differs from the defaults. Rows of one name are one preset, with values
    for some models in particular; a row for no model is the one for all others.

    Raises:
        UnknownSetting: there is no such file; the message lists those there are.
    """
    path = PRESETS / f"{method}.toml"
    if not path.is_file():
        raise UnknownSetting(
            _unknown("file of presets for method", method, (file.stem for file in PRESETS.glob("*.toml")))
        )
    table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    defaults: dict[str, object] = dict(table["defaults"])
    source = str(defaults.pop("source"))
    presets = tuple(_preset(row, defaults) for row in table["preset"])
    rule = str(table.get("layer_rule", "several"))
    return Presets(
        method=method,
        defaults=defaults,
        source=source,
        presets=presets,
        layer_rule=rule,
        late_layer_rule=table.get("late_layer_rule"),
    )


def _preset(row: Mapping[str, Any], defaults: Mapping[str, object]) -> Preset:
    own = {name: value for name, value in row.items() if name not in ("name", "models", "source")}
    return Preset(
        name=row["name"], models=tuple(row["models"]), values={**defaults, **own}, source=row["source"]
    )
