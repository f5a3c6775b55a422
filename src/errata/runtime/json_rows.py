"""Rows of JSON as results keep them: each reader takes a value as it was found, and names what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from errata.errors import ResultsError


def float_to_json(value: float) -> float | str | None:
    """JSON has no NaN and no infinity: `null` and "-inf" stand for them."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def float_from_json(value: object) -> float:
    """The opposite of `float_to_json`."""
    if value is None:
        return math.nan
    if value in ("inf", "-inf") or (isinstance(value, int | float) and not isinstance(value, bool)):
        return float(cast("float | str", value))
    raise ResultsError(f"log_probabilities must hold numbers, and holds {value!r}.")


def object_of(value: object, name: str) -> Mapping[str, object]:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        raise ResultsError(f"{name} must be an object in braces.")
    return cast("Mapping[str, object]", value)


def items_of(row: Mapping[str, object], name: str) -> Sequence[object]:
    """The list of that name."""
    value = row.get(name)
    if not isinstance(value, list):
        raise ResultsError(f"{name} is missing or not a list.")
    return cast("Sequence[object]", value)


def integers_of(row: Mapping[str, object], name: str) -> tuple[int, ...]:
    """The whole numbers of the list of that name."""
    items = items_of(row, name)
    if any(isinstance(item, bool) or not isinstance(item, int) for item in items):
        raise ResultsError(f"{name} must hold whole numbers.")
    return tuple(cast("Sequence[int]", items))


def text_of(row: Mapping[str, object], name: str) -> str:
    """The text of that name."""
    value = row.get(name)
    if not isinstance(value, str):
        raise ResultsError(f"{name} is missing or not a text.")
    return value


def text_or_none(row: Mapping[str, object], name: str) -> str | None:
    """The text of that name, or None for what is absent or `null`."""
    return None if row.get(name) is None else text_of(row, name)
