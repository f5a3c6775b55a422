"""The tree of errors is what its docstring draws, and every class has its page."""

import builtins
import inspect
import re
from pathlib import Path

import pytest

from errata import errors
from errata.errors import ErrataError

PAGES = Path(__file__).parents[1] / "docs" / "errors"
CLASSES = {
    name: found
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, BaseException) and found.__module__ == errors.__name__
}
DRAWN = re.compile(
    r"^    (?P<bars>[|` -]*)(?P<name>[A-Z]\w+)(?: \((?P<builtin>\w+)\))?(?: {2,}(?P<what>.*))?$"
)

every_class = pytest.mark.parametrize("name", CLASSES)


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Of each class in the docstring, the one above it and the built-in one that it names."""
    above: list[str] = []
    found: dict[str, tuple[str | None, str | None]] = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := DRAWN.match(line):
            depth = len(match["bars"]) // 4
            above = [*above[:depth], match["name"]]
            found[match["name"]] = (above[-2] if depth else None, match["builtin"])
    return found


def page_of(name: str) -> Path:
    return PAGES / f"{re.sub(r'(?<!^)(?=[A-Z])', '-', name).lower()}.md"


def builtin_of(name: str) -> str:
    """The nearest built-in error of a class."""
    return next(
        found.__name__ for found in CLASSES[name].__mro__ if vars(builtins).get(found.__name__) is found
    )


def test_the_docstring_draws_every_class_and_no_other() -> None:
    assert set(drawn()) == set(CLASSES)


@every_class
def test_each_is_where_the_docstring_draws_it(name: str) -> None:
    above, builtin = drawn()[name]
    found = CLASSES[name]
    assert issubclass(found, ErrataError)
    assert (found.__bases__[0].__name__ if found is not ErrataError else None) == above
    if builtin is not None:
        assert issubclass(found, getattr(builtins, builtin))
    elif above is not None and above != "ErrataError":
        assert builtin_of(name) == builtin_of(above)


@every_class
def test_each_is_also_a_built_in_error_and_says_what_it_is(name: str) -> None:
    assert name == "ErrataError" or issubclass(
        CLASSES[name], ValueError | OSError | MemoryError | ImportError
    )
    assert CLASSES[name].__doc__
    assert str(CLASSES[name]("what, why, what to do")) == "what, why, what to do"


def test_every_page_has_its_class_and_every_class_its_page() -> None:
    pages = {page.name for page in PAGES.iterdir()} - {"README.md"}
    assert pages == {page_of(name).name for name in CLASSES}


@every_class
def test_a_page_says_symptom_cause_and_fix(name: str) -> None:
    text = page_of(name).read_text("utf-8")
    assert text.startswith(f"# {name}\n\n")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) in (
        ["Symptom", "Cause", "Fix"],
        ["Symptom", "Cause and fix"],
    )
    if name != "ErrataError":
        named = drawn()[name][1] or builtin_of(name)
        assert f"Also a `{named}`." in text
        assert f"    {name}: " in text
    assert len(text.splitlines()) <= 45


@every_class
def test_the_index_has_every_page(name: str) -> None:
    index = (PAGES / "README.md").read_text("utf-8")
    builtin = "Exception" if name == "ErrataError" else drawn()[name][1] or builtin_of(name)
    assert f"| [{name}]({page_of(name).name}) | {builtin} |" in index


@pytest.mark.parametrize("page", sorted(PAGES.iterdir()), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).is_file(), target
