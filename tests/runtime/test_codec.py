"""The codec between dataclasses and JSON: what each type becomes, and what each mistake is called."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest

from errata.runtime import NON_FINITE, Form, JsonMismatch, from_json, to_json


@dataclass(frozen=True)
class Inner:
    JSON: ClassVar = Form(title="inner or outer")

    text: str
    number: float = 0.5


@dataclass(frozen=True)
class Outer:
    JSON: ClassVar = Form(optional=("late",))

    name: str
    count: int | str | None
    pair: tuple[int, str]
    inner: Inner | None
    several: tuple[Inner, ...]
    table: Mapping[str, tuple[tuple[float, ...], ...]]
    odd: Annotated[tuple[float, ...], NON_FINITE]
    anything: object
    late: tuple[str, ...] = ("default",)


@dataclass(frozen=True)
class Exact:
    JSON: ClassVar = Form(exact=True)

    a: int
    b: str = "b"


@dataclass(frozen=True)
class Sparse:
    JSON: ClassVar = Form(omit_defaults=True)

    a: int
    b: tuple[str, ...] = ()


WHOLE = Outer(
    "n",
    3,
    (1, "x"),
    Inner("t"),
    (Inner("u", 2.0),),
    {"k": ((1.0, 2.0), ())},
    (-0.5, -math.inf),
    [1, {"a": 2}],
)


def row(**changes: object) -> dict[str, object]:
    return {**to_json(WHOLE), **changes}


def test_what_is_written_is_read_again() -> None:
    assert from_json(Outer, json.loads(json.dumps(to_json(WHOLE))), "it") == WHOLE


def test_fields_keep_their_order_and_tuples_are_lists() -> None:
    assert json.dumps(to_json(WHOLE)) == (
        '{"name": "n", "count": 3, "pair": [1, "x"], "inner": {"text": "t", "number": 0.5}, '
        '"several": [{"text": "u", "number": 2.0}], "table": {"k": [[1.0, 2.0], []]}, "odd": [-0.5, "-inf"], '
        '"anything": [1, {"a": 2}], "late": ["default"]}'
    )


def test_what_is_not_a_number_is_null() -> None:
    assert to_json(Outer("n", None, (1, ""), None, (), {}, (math.nan,), None))["odd"] == [None]
    (value,) = from_json(Outer, row(odd=[None]), "it").odd
    assert math.isnan(value)


def test_what_json_cannot_say_is_left_to_json() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(to_json({"when": object()}))


def test_defaults_are_left_out_where_the_class_says_so() -> None:
    assert to_json(Sparse(0)) == {"a": 0}
    assert to_json(Sparse(0, ("x",))) == {"a": 0, "b": ["x"]}


def test_unknown_members_are_ignored_and_nullable_ones_may_lack() -> None:
    read = from_json(Outer, {name: value for name, value in row(new=1).items() if name != "inner"}, "it")
    assert read.inner is None
    assert from_json(Outer, {name: value for name, value in row().items() if name != "late"}, "it") == WHOLE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 5}, "name is missing or not a text."),
        ({"name": None}, "name is missing or not a text."),
        ({"count": True}, "count must be a whole number or a text."),
        ({"count": 1.5}, "count must be a whole number or a text."),
        ({"pair": [1]}, "pair must have 2 members."),
        ({"pair": ["x", 1]}, "pair is missing or not a whole number."),
        ({"pair": 3}, "pair is missing or not a list."),
        ({"inner": 3}, "inner or outer must be an object in braces."),
        ({"inner": {"text": "t", "number": "x"}}, "number is missing or not a number."),
        ({"inner": {"text": "t", "number": True}}, "number is missing or not a number."),
        ({"several": {}}, "several is missing or not a list."),
        ({"table": [1]}, "table must be an object in braces."),
        ({"table": {"k": [["x"]]}}, "a member of a member of table must hold numbers, and holds 'x'."),
        ({"odd": ["x"]}, "odd must hold numbers, and holds 'x'."),
        ({"late": [1]}, "late must hold texts, and holds 1."),
    ],
)
def test_a_mistake_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(JsonMismatch) as caught:
        from_json(Outer, row(**changes), "it")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": 1}, "it has no 'b'."),
        ({"a": 1, "b": "", "c": 2}, "it has 'c', which this version of Errata does not know."),
        ([], "it must be an object in braces."),
    ],
)
def test_an_exact_object_has_all_members_and_no_other(value: object, message: str) -> None:
    with pytest.raises(JsonMismatch) as caught:
        from_json(Exact, value, "it")
    assert str(caught.value) == message


@dataclass(frozen=True)
class Sum:
    JSON: ClassVar = Form(computed={"sum": lambda one: one.a + one.b})

    a: int
    b: int


def test_computed_members_are_written_and_not_read() -> None:
    assert to_json(Sum(1, 2)) == {"a": 1, "b": 2, "sum": 3}
    assert from_json(Sum, {"a": 1, "b": 2, "sum": 4}, "it") == Sum(1, 2)
