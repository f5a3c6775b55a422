"""Recipes: each table and figure of the papers as one TOML in `errata/recipes/`, with the papers' own numbers as data.

A recipe names rows (a method with its settings and its strategy), columns (metrics), how many facts are edited on the
embedded model and in the paper, and what the paper printed.
"""

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from errata.errors import UnknownSetting
from errata.settings import dotted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).parent / "recipes"
PAPERS = {
    "pmet": "Li et al., PMET: Precise Model Editing in a Transformer, AAAI 2024",
    "under-over-edit": "Baghel et al., Resolving UnderEdit & OverEdit with Iterative & Neighbor-Assisted Model Editing",
}
UNEDITED = "Unedited"
"""The row without a method; every recipe that edits has it, shown or not: it is the "before" of all others."""
Show = Literal["end", "first-and-end", "all", "rules"]
"""Which iterations of a row become lines: the last; the first and the last; all; those that stop rules choose."""


@dataclass(frozen=True)
class RecipeRow:
    """A row: a method with what it is given over its preset."""

    name: str
    method: str | None = None
    preset: str | None = None
    presets: Mapping[str, str] = field(default_factory=dict[str, str])
    """Preset by model, over `preset`."""
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    """By their paths."""
    strategy: Mapping[str, object] = field(default_factory=dict[str, object])
    """The fields of `errata.Strategy`; empty where the method is run once."""

    def preset_for(self, model: str) -> str | None:
        """The preset to name for a model; None for its usual one."""
        short = model.rsplit("/", 1)[-1].lower()
        chosen = {name.rsplit("/", 1)[-1].lower(): preset for name, preset in self.presets.items()}
        return chosen.get(short, self.preset)


@dataclass(frozen=True)
class Sizes:
    """How large an experiment is."""

    edits: tuple[int, ...]
    trials: int = 1
    """Disjoint draws of facts; what is reported is over all of them."""
    iterations: int | None = None
    """Over the strategies' own, where they iterate at all."""
    models: tuple[str, ...] = ()
    """The paper's models; empty for the embedded one."""


@dataclass(frozen=True)
class Printed:
    """One line of the paper: its values in the paper's units, each with the half width of its interval, if printed."""

    model: str
    id: str
    data: str
    edits: int
    row: str
    step: int | None
    values: Mapping[str, tuple[float, float | None]]


@dataclass(frozen=True)
class Recipe:
    """One table or figure of a paper."""

    name: str
    title: str
    paper: str
    place: str
    columns: tuple[str, ...]
    rows: tuple[RecipeRow, ...]
    sizes: Sizes
    """On the embedded model."""
    published: Sizes
    show: Show = "end"
    data: tuple[str, ...] = ("counterfact",)
    """The paper's data sets."""
    analysis: str | None = None
    """What is measured in place of edits: "similarity"."""
    neighbors: bool = False
    """Whether only facts are used that have neighbors, and those neighbors are chosen (paper 2, appendix B.2)."""
    each_write: bool = False
    """Whether the model is evaluated after each iteration."""
    figures: tuple[str, ...] = ()
    note: str = ""
    printed: tuple[Printed, ...] = ()

    @property
    def source(self) -> str:
        """The paper and the place in it."""
        return f"{PAPERS[self.paper]}, {self.place}"

    def resized(self, edits: int | None) -> "Recipe":
        """The recipe with another number of edits: every count up to it where there are several, else that one."""
        if edits is None:
            return self
        return replace(self, sizes=_up_to(self.sizes, edits), published=_up_to(self.published, edits))


def _up_to(sizes: Sizes, edits: int) -> Sizes:
    kept = tuple(count for count in sizes.edits if count < edits) if len(sizes.edits) > 1 else ()
    return replace(sizes, edits=(*kept, edits))


@cache
def recipe_names() -> tuple[str, ...]:
    """Every recipe, by paper, tables before figures."""
    names = {path.stem for path in RECIPES.glob("*.toml")}
    return tuple(sorted(names, key=lambda name: (tuple(PAPERS).index(_paper_of(name)), *_order(name))))


def _paper_of(name: str) -> str:
    return next(paper for paper in PAPERS if name.startswith(paper))


def _order(name: str) -> tuple[str, int]:
    kind, number = name.rsplit("-", 2)[-2:]
    return {"table": "1", "figure": "2"}[kind], int(number)


def load_recipe(name: str) -> Recipe:
    """Read `recipes/<name>.toml`.

    Raises:
        UnknownSetting: there is no recipe of that name; the message lists those there are.
    """
    if name not in recipe_names():
        close = difflib.get_close_matches(name, recipe_names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownSetting(f"There is no recipe {name!r}.{hint} Known: {', '.join(recipe_names())}.")
    table: dict[str, Any] = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    return recipe_of(table)


def recipe_of(table: Mapping[str, Any]) -> Recipe:
    """A recipe from its TOML; a mistake in it is a mistake of ours."""
    values = dict(table)
    rows = tuple(_row(row) for row in values.pop("row", ()))
    printed = tuple(line for block in values.pop("printed", ()) for line in _printed(block))
    sizes, published = _sizes(values.pop("almanac")), _sizes(values.pop("paper_setting"))
    for name in ("columns", "data", "figures"):
        values[name] = tuple(values.get(name, ()))
    recipe = Recipe(rows=rows, sizes=sizes, published=published, printed=printed, **values)
    assert recipe.show in get_args(Show), recipe.show
    assert recipe.paper in PAPERS, recipe.paper
    return recipe


def _row(table: Mapping[str, Any]) -> RecipeRow:
    values = dict(table)
    return RecipeRow(settings=dotted(values.pop("settings", {})), **values)


def _sizes(table: Mapping[str, Any]) -> Sizes:
    values = dict(table)
    edits, models = tuple(values.pop("edits")), tuple(values.pop("models", ()))
    return Sizes(edits=edits, models=models, **values)


def _printed(block: Mapping[str, Any]) -> list[Printed]:
    """The lines of one block; its `columns` name what stands in each row: "row", "k", "edits", or a metric."""
    columns = cast("Sequence[str]", block["columns"])
    lines: list[Printed] = []
    for cells in cast("Sequence[Sequence[object]]", block["rows"]):
        row = dict(zip(columns, cells, strict=True))
        name, step = str(row.pop("row")), cast("int | None", row.pop("k", None))
        edits = cast(int, row.pop("edits", None) or block["edits"])
        values = {column: _value(cell) for column, cell in row.items() if cell != ""}
        lines.append(Printed(block["model"], block["id"], block["data"], edits, name, step, values))
    return lines


def _value(cell: object) -> tuple[float, float | None]:
    """A number, or a number with half of its interval."""
    if isinstance(cell, list):
        mean, half = cast("list[float]", cell)
        return float(mean), float(half)
    return float(cast(float, cell)), None
