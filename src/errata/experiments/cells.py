"""A recipe as cells: one method with its settings on one draw of facts, each with a name of its own."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from errata.experiments.recipes import UNEDITED, Recipe, RecipeRow, Sizes
from errata.settings import dotted, old_name

EMBEDDED = "almanac"
HALF = "held-out"
"""The facts that no preset was tuned on."""


@dataclass(frozen=True)
class Request:
    """What is asked of a recipe."""

    recipe: Recipe
    model: str = EMBEDDED
    facts: str | None = None
    """A file, or the id of a data set; None for the recipe's own data."""
    seed: int = 0

    @property
    def embedded(self) -> bool:
        """Whether the model is the one that ships with Errata."""
        return self.model.lower() == EMBEDDED

    @property
    def sizes(self) -> Sizes:
        """Small for the embedded model, the paper's for others."""
        return self.recipe.sizes if self.embedded else self.recipe.published

    @property
    def data(self) -> tuple[str, ...]:
        """Where the facts come from."""
        if self.facts is not None:
            return (self.facts,)
        return (f"{EMBEDDED}/{HALF}",) if self.embedded else self.recipe.data

    @property
    def cells(self) -> list["Cell"]:
        """Every cell in the order in which they are run: few edits first, the unedited model before the others."""
        rows = self.recipe.rows
        if self.recipe.analysis is None and not any(row.method is None for row in rows):
            rows = (RecipeRow(UNEDITED), *rows)
        return [
            Cell(self, row, data, edits, trial)
            for edits in self.sizes.edits
            for data in self.data
            for trial in range(self.sizes.trials)
            for row in sorted(rows, key=lambda row: row.method is not None)
        ]


@dataclass(frozen=True)
class Cell:
    """One run: a row on one draw of facts."""

    request: Request
    row: RecipeRow
    data: str
    edits: int
    trial: int

    @property
    def preset(self) -> str | None:
        """The preset that is named; None for the model's usual one."""
        return self.row.preset_for(self.request.model)

    @property
    def strategy(self) -> dict[str, object]:
        """The fields of `errata.Strategy`."""
        strategy, iterations = dict(self.row.strategy), self.request.sizes.iterations
        if iterations is not None and "iterations" in strategy:
            strategy["iterations"] = iterations
        return strategy

    @property
    def iterations(self) -> int:
        """At most so many writes of all facts."""
        iterations = self.strategy.get("iterations", 1)
        return iterations if isinstance(iterations, int) and self.row.method else 1

    @property
    def each_write(self) -> bool:
        """Whether the model is evaluated after each iteration."""
        return self.request.recipe.each_write and bool(self.row.strategy)

    def described(self) -> dict[str, object]:
        """Everything that the outcome depends on, and that is known before the run; the digest is of this."""
        return {
            "method": self.row.method,
            "preset": self.preset,
            "settings": dict(self.row.settings),
            "strategy": self.strategy,
            "analysis": self.request.recipe.analysis,
            "neighbors": self.request.recipe.neighbors,
            "each_write": self.each_write,
            "model": self.request.model,
            "data": self.data,
            "facts_file": digest_of(self.data),
            "edits": self.edits,
            "trial": self.trial,
            "trials": self.request.sizes.trials,
            "seed": self.request.seed,
            "version": version("errata"),
        }

    @property
    def name(self) -> str:
        """The name of its files: `pmet-100-trial0-1f2e3d4c`."""
        # By the settings' old names, so that cells which are stored already are found.
        settings = {old_name(name): value for name, value in dotted(self.row.settings).items()}
        text = json.dumps({**self.described(), "settings": settings}, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        word = re.sub(r"[^a-z0-9]+", "-", self.row.name.lower()).strip("-")
        return f"{word}-{self.edits}-trial{self.trial}-{digest}"


def weight(cell: Cell) -> int:
    """How much a cell counts in the progress: facts that are written, once per iteration."""
    return max(1, cell.edits * cell.iterations)


@cache
def digest_of(source: str) -> str | None:
    """Of a file of facts; None for what is not a file."""
    path = Path(source)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
