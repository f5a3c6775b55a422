"""What a recipe will take: cells, time, memory and disk, told before anything is run, and where each number is from."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from errata.experiments.cells import Cell, Request
from errata.experiments.running import stored

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TIMINGS = Path(__file__).parent / "timings.toml"
BYTES_PER_FACT = 8_000
"""Of stored outcomes, one evaluation."""
EMBEDDED_BYTES = 30_000_000
"""Of second moments and values that are kept of the embedded model."""
FROM_TIMINGS = "measured on the embedded model ({measured}); other machines differ"
FROM_SIZE = (
    "an estimate from the number of parameters, at {tera:.0f} TFLOP/s (a data-centre GPU in half precision); "
    "second moments, which are measured once, and downloads not counted"
)
UNKNOWN = "not known: there are no timings for this model"


@dataclass(frozen=True)
class Plan:
    """What is to be run; numbers are None where nobody knows."""

    cells: tuple[Cell, ...]
    done: int
    """How many of the cells are stored already."""
    seconds: float | None
    """For those that are not."""
    basis: str
    """Where the time is from."""
    memory: float | None
    """Bytes: the weights, and the second moments of one layer, twice, in float64."""
    disk: float | None
    """Bytes: the output, and what is kept in the cache."""

    @property
    def left(self) -> int:
        """How many cells are to be run."""
        return len(self.cells) - self.done


@cache
def timings() -> Mapping[str, Any]:
    """`timings.toml`."""
    return tomllib.loads(TIMINGS.read_text(encoding="utf-8"))


def plan(request: Request, folder: Path | None = None) -> Plan:
    """The plan of a request; cells that lie in `folder` are not counted again."""
    cells = tuple(request.cells)
    left = [cell for cell in cells if folder is None or stored(folder, cell) is None]
    outcomes = float(sum(cell.edits * _evaluations(cell) * BYTES_PER_FACT for cell in left))
    done = len(cells) - len(left)
    if request.embedded:
        known = timings()["almanac"]
        basis = FROM_TIMINGS.format(measured=known["measured"])
        seconds = sum(_embedded_seconds(cell, known) for cell in left)
        return Plan(cells, done, seconds, basis, known["memory_gb"] * 1e9, outcomes + EMBEDDED_BYTES)
    model = _model_named(request.model)
    if model is None:
        return Plan(cells, done, None, UNKNOWN, None, None)
    work = timings()["work"]
    seconds = sum(_flops(cell, work) for cell in left) * model["parameters"] / work["flops_per_second"]
    moment = 8.0 * model["d_ffn"] ** 2
    memory = 2 * model["parameters"] + 2 * moment
    disk = outcomes + moment / 2 * model["layers"] + 2 * model["parameters"]
    basis = FROM_SIZE.format(tera=work["flops_per_second"] / 1e12)
    return Plan(cells, done, seconds, basis, memory, disk)


def _evaluations(cell: Cell) -> int:
    return cell.iterations if cell.each_write else 1


def _embedded_seconds(cell: Cell, known: Mapping[str, Any]) -> float:
    if cell.request.recipe.analysis is not None:
        return known["similarity"] * cell.edits
    asking = known["evaluation"] * cell.edits * _evaluations(cell)
    if cell.row.method is None:
        return asking
    start, each = known["methods"].get(cell.row.method, (1.0, 0.3))
    return start + each * cell.edits * cell.iterations + asking


def _flops(cell: Cell, work: Mapping[str, float]) -> float:
    """Operations per parameter."""
    asking = work["evaluation"] * cell.edits * _evaluations(cell)
    if cell.row.method is None:
        return asking
    each = work["tuning"] if cell.row.method in ("finetune", "mend") else work["value"]
    return each * cell.edits * cell.iterations + asking


def _model_named(name: str) -> Mapping[str, Any] | None:
    short = name.rsplit("/", 1)[-1].lower()
    models: Mapping[str, Any] = timings()["models"]
    return next((model for key, model in models.items() if key.rsplit("/", 1)[-1].lower() == short), None)
