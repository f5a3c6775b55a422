"""Settings: a tree of small frozen dataclasses, one a stage, built from layers of values and checked.

Each stage declares its settings beside it (`ValueSettings` in `errata.values`, `KeySettings` in `errata.solve`, ...); a
method's settings contain those of its stages. In Python a setting is named by its path, `"values.steps"`, or stands in
a table, `{"values": {"steps": 25}}`; on the command line it is `--set values.steps=25`. Values come in layers, a later
one over an earlier one and over its alternatives (`alternatives.py`): the preset (`presets/<method>.toml`), then the
user's.
"""

import difflib
import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from errata.errors import SettingsError, UnknownSetting
from errata.settings.alternatives import overlaid
from errata.settings.old_names import new_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")
_HELP = "help"

S = TypeVar("S")


# --- the tree of settings ------------------------------------------------------------------------


def about(text: str) -> dict[str, str]:
    """The `metadata` of a dataclass field that is a setting: one line that says what it does."""
    return {_HELP: text}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a tree."""

    name: str
    """Its path, with dots."""
    kind: object
    """The annotation."""
    help: str
    default: object
    """`MISSING` from `dataclasses` where it has none."""


def settings_of(cls: type, prefix: str = "") -> list[Setting]:
    """Every setting of a tree of dataclasses, in the order in which they are declared."""
    kinds = get_type_hints(cls)
    found: list[Setting] = []
    for field in _init_fields(cls):
        kind: object = kinds[field.name]
        name = f"{prefix}{field.name}"
        if isinstance(kind, type) and is_dataclass(kind):
            found += settings_of(kind, f"{name}.")
        else:
            made = field.default_factory
            default = cast("object", field.default if made is MISSING else made())
            found.append(
                Setting(
                    name=name,
                    kind=cast("object", kind),
                    help=str(field.metadata.get(_HELP, "")),
                    default=default,
                )
            )
    return found


def _init_fields(cls: type) -> list[Field[Any]]:
    return [field for field in fields(cast(Any, cls)) if field.init]


def dotted(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """The values with tables taken apart: `{"values": {"steps": 25}}` as `{"values.steps": 25}`."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= dotted(cast("Mapping[str, object]", value), f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def flatten(settings: object, prefix: str = "") -> dict[str, Any]:
    """The values of a settings object by their paths: `build` makes the same object of them."""
    found: dict[str, Any] = {}
    for field in _init_fields(type(settings)):
        value: object = getattr(settings, field.name)
        if is_dataclass(value):
            found |= flatten(value, f"{prefix}{field.name}.")
        else:
            found[f"{prefix}{field.name}"] = value
    return found


# --- building a settings object ------------------------------------------------------------------


def build(cls: type[S], *layers: Mapping[str, object]) -> S:
    """Make the settings object `cls` from layers of values; a later layer wins over an earlier one.

    A layer names settings by their paths, or holds tables. Whole numbers pass as floats, lists as tuples, and `"3-8"`
    or `"3-5,9"` as a tuple of whole numbers.

    Raises:
        UnknownSetting: a layer names a setting that `cls` does not have.
        SettingsError: a value has the wrong type, a setting has no value, or a dataclass refuses the values.
    """
    known = {one.name: one for one in settings_of(cls)}
    merged = overlaid(*(dotted(layer) for layer in layers))
    strangers = [name for name in merged if name not in known]
    if strangers:
        raise UnknownSetting(_refusal(strangers, known))
    for name, one in known.items():
        if name not in merged and one.default is MISSING:
            raise SettingsError(
                f"Setting {name!r} has no value. Give it one: settings={{{name!r}: ...}}, "
                f"or --set {name}=... on the command line."
            )
    return _make(cls, "", {name: _checked(name, value, known[name].kind) for name, value in merged.items()})


def _make(cls: type[S], prefix: str, values: Mapping[str, object]) -> S:
    """The object with its inner ones; what a dataclass says of its own setting is said of the whole path."""
    kinds = get_type_hints(cls)
    own: dict[str, object] = {}
    for field in _init_fields(cls):
        kind, name = kinds[field.name], f"{prefix}{field.name}"
        if isinstance(kind, type) and is_dataclass(kind):
            own[field.name] = _make(kind, f"{name}.", values)
        elif name in values:
            own[field.name] = values[name]
    try:
        return cls(**own)
    except SettingsError as error:
        raise SettingsError(re.sub(r"^Setting '", f"Setting '{prefix}", str(error))) from None


def _refusal(names: Sequence[str], known: Collection[str]) -> str:
    """What refuses names that are not known: all those with a new name, or else the first of them."""
    renamed = {name: new for name in names if (new := new_names(name, known))}
    if renamed:
        return " ".join(
            f"Setting {old!r} is now {' and '.join(map(repr, new))}." for old, new in renamed.items()
        )
    name = names[0]
    inside = [one for one in known if one.startswith(f"{name}.")]
    if inside:
        return f"{name!r} is a table of settings. Set one of {', '.join(inside)}."
    return unknown("setting", name, known, hint=_near(name, known))


def _near(name: str, known: Collection[str]) -> str | None:
    """The setting that is probably meant: one of that last name, then one that is written alike."""
    leaf = name.rpartition(".")[2]
    by_leaf: dict[str, list[str]] = {}
    for one in known:
        by_leaf.setdefault(one.rpartition(".")[2], []).append(one)
    near = difflib.get_close_matches(leaf, by_leaf, n=1) or difflib.get_close_matches(name, known, n=1)
    if not near:
        return None
    return difflib.get_close_matches(name, by_leaf.get(near[0], near), n=1, cutoff=0.0)[0]


def unknown(what: str, name: str, known: Iterable[str], hint: str | None = None) -> str:
    """The sentence that refuses a name that there is not; `hint` is the one that is meant, by default a near one."""
    names = sorted(known)
    close = [hint] if hint else difflib.get_close_matches(name, names, n=1)
    question = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no {what} {name!r}.{question} Known: {', '.join(names) or 'none'}."


# --- one value -----------------------------------------------------------------------------------


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
                f"{assignment!r} does not set anything. Write name=value, for example layers=3-8."
            )
        values[name] = _toml_value(text.strip())
    return values


def _toml_value(text: str) -> object:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text
