"""One codec between frozen dataclasses and JSON, driven by their type hints.

A dataclass is an object with a member for each field, in the order of the fields; a tuple is a list, None is null.
What is stored in another way says so with a `Form`: a class in its class variable `JSON`, a field (or a part of its
type, for reading) in `Annotated[..., Form(...)]`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass
from functools import cache, partial
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
Read = Callable[[Any, str], Any]
"""From a value of JSON and its name, for messages, to what is kept of it."""
Write = Callable[[Any], object]


class JsonMismatch(ValueError):
    """A value of JSON is not what a type hint says; the message names it."""


@dataclass(frozen=True, eq=False)
class Form:
    """How something is stored where that is not the rule."""

    write: Write | None = None
    read: Read | None = None
    exact: bool = False
    """Whether every member must be there, and no other; else unknown ones are ignored and nullable ones may lack."""
    optional: tuple[str, ...] = ()
    """Members that may lack, because older files do: they have their default then."""
    omit_defaults: bool = False
    """Whether fields that have their default are not written."""
    computed: Mapping[str, Write] = dataclasses.field(default_factory=dict[str, Write])
    """Members that are written after the fields, for other programs; they are not read."""
    title: str = ""
    """What messages call the object, in place of the name that it has where it is."""


def to_json(value: object) -> Any:
    """The value as JSON has it: dataclasses and mappings as dicts, tuples as lists, all else as it is."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, tuple | list):
        return [to_json(member) for member in cast("Sequence[object]", value)]
    if isinstance(value, Mapping):
        return {name: to_json(member) for name, member in cast("Mapping[str, object]", value).items()}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    form = _form_of(type(value))
    if form.write is not None:
        return form.write(value)
    row: dict[str, object] = {}
    for field, write, _ in _members(type(value)):
        member: object = getattr(value, field.name)
        if not form.omit_defaults or field.default is MISSING or member != field.default:
            row[field.name] = write(member)
    return row | {name: write(value) for name, write in form.computed.items()}


def from_json(kind: type[T], value: object, name: str) -> T:
    """The dataclass that `to_json` wrote; `name` is what messages call it.

    Raises:
        JsonMismatch: something is missing, unknown or of the wrong type; the message names it.
        ValueError: what the dataclass itself raises.
    """
    return _reader(kind)(value, name)


def float_to_json(value: float) -> float | str | None:
    """JSON has no NaN and no infinity: `null` and "-inf" stand for them."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def float_from_json(value: object, name: str) -> float:
    """The opposite of `float_to_json`."""
    if value is None:
        return math.nan
    if value in ("inf", "-inf") or _is_scalar(value, (float,)):
        return float(cast("float | str", value))
    raise JsonMismatch(f"{name} must hold numbers, and holds {value!r}.")


NON_FINITE = Form(
    write=lambda values: [float_to_json(value) for value in values],
    read=lambda values, name: tuple(float_from_json(value, name) for value in items_of(values, name)),
)
"""Of a tuple of floats some of which are no numbers."""


def items_of(value: object, name: str) -> Sequence[object]:
    """The value, which must be a list."""
    if not isinstance(value, list):
        raise JsonMismatch(f"{name} is missing or not a list.")
    return cast("Sequence[object]", value)


def object_of(value: object, name: str) -> dict[str, object]:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        raise JsonMismatch(f"{name} must be an object in braces.")
    return cast("dict[str, object]", value)


# --- types -----------------------------------------------------------------------------------------

SCALARS: Mapping[type, tuple[tuple[type, ...], str, str]] = {
    str: ((str,), "a text", "texts"),
    int: ((int,), "a whole number", "whole numbers"),
    float: ((int, float), "a number", "numbers"),
}
"""What is accepted for a type, and what messages call one and several of it."""


def _form_of(kind: type) -> Form:
    return getattr(kind, "JSON", Form())


@cache
def _members(kind: type) -> list[tuple[Field[Any], Write, Read]]:
    """The fields of a dataclass, with what writes and reads each."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        (field, _form_in(hints[field.name]).write or to_json, _reader(hints[field.name]))
        for field in dataclasses.fields(kind)
    ]


def _form_in(hint: Any) -> Form:
    """The form that a hint is annotated with."""
    forms = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((form for form in forms if isinstance(form, Form)), Form())


@cache
def _reader(hint: Any) -> Read:
    """What reads a value of that type."""
    origin, of = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _form_in(hint).read or _reader(of[0])
    if origin in (Union, UnionType):
        return _union_reader(of)
    if origin is tuple:
        return partial(_read_list, of)
    if origin in (Mapping, dict):
        return partial(_read_mapping, of[1])
    if hint in SCALARS:
        return partial(_read_scalar, (hint,))
    if dataclasses.is_dataclass(hint):
        return _form_of(cast(type, hint)).read or partial(_read_object, cast(type, hint))
    return lambda value, name: value


def _read_object(kind: type, value: object, name: str) -> object:
    form = _form_of(kind)
    row = object_of(value, form.title or name)
    if form.exact:
        _check_names(row, [field.name for field in dataclasses.fields(kind)], form.optional)
    return kind(
        **{
            field.name: read(row.get(field.name), field.name)
            for field, _, read in _members(kind)
            if field.name in row or field.name not in form.optional
        }
    )


def _check_names(row: Mapping[str, object], names: Sequence[str], optional: Sequence[str]) -> None:
    for name in names:
        if name not in row and name not in optional:
            raise JsonMismatch(f"it has no {name!r}.")
    for name in row:
        if name not in names:
            raise JsonMismatch(f"it has {name[:90]!r}, which this version of Errata does not know.")


def _read_mapping(of: Any, value: object, name: str) -> dict[str, object]:
    read = _reader(of)
    return {key: read(each, f"a member of {name}") for key, each in object_of(value, name).items()}


def _read_list(of: tuple[Any, ...], value: object, name: str) -> tuple[object, ...]:
    """A list of any length (`tuple[X, ...]`), or of one of each type."""
    items = items_of(value, name)
    if of[1:] != (...,):
        if len(items) != len(of):
            raise JsonMismatch(f"{name} must have {len(of)} members.")
        return tuple(_reader(each)(item, name) for each, item in zip(of, items, strict=True))
    if of[0] not in SCALARS:
        read = _reader(of[0])
        return tuple(read(item, f"a member of {name}") for item in items)
    for item in items:
        if not _is_scalar(item, of[:1]):
            raise JsonMismatch(f"{name} must hold {SCALARS[of[0]][2]}, and holds {item!r}.")
    return tuple(items)


def _union_reader(of: tuple[Any, ...]) -> Read:
    """Of what may be null, or one of several scalars."""
    kinds = tuple(kind for kind in of if kind is not type(None))
    read = _reader(kinds[0]) if len(kinds) == 1 else partial(_read_scalar, kinds)
    nullable = len(kinds) < len(of)

    def read_union(value: object, name: str) -> object:
        return None if value is None and nullable else read(value, name)

    return read_union


def _read_scalar(kinds: tuple[type, ...], value: object, name: str) -> object:
    if _is_scalar(value, kinds):
        return value
    if len(kinds) == 1:
        raise JsonMismatch(f"{name} is missing or not {SCALARS[kinds[0]][1]}.")
    raise JsonMismatch(f"{name} must be {' or '.join(SCALARS[kind][1] for kind in kinds)}.")


def _is_scalar(value: object, kinds: Sequence[type]) -> bool:
    """Whether it is of one of these types; true and false are no numbers."""
    return not isinstance(value, bool) and any(isinstance(value, SCALARS[kind][0]) for kind in kinds)
