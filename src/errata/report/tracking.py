"""What an edit and its evaluation measured, sent to trackio, TensorBoard or Weights & Biases. Off unless asked for.

    with Tracker.of("tensorboard:runs", "my-edit") as tracker:
        tracker.edit(edit)
        tracker.results(results)

docs/tracking.md lists the names under which each number is found.
"""

import json
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from errata.edits import Edit
from errata.errors import MissingExtra, SettingsError
from errata.results import Phase, Results, Score

PROJECT = "errata"
RUNS = "runs"
"""Where TensorBoard's files go where no folder is named."""


@runtime_checkable
class Sink(Protocol):
    """A library that keeps numbers of runs."""

    def settings(self, values: Mapping[str, object]) -> None:
        """What the run was made with; values are of JSON's types."""
        ...

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Finite numbers by name, of one step."""
        ...

    def close(self) -> None:
        """Write everything out."""
        ...


@dataclass(frozen=True)
class Tracker:
    """One run in a library that keeps runs."""

    sink: Sink

    @classmethod
    @contextmanager
    def of(cls, where: str, name: str) -> Generator["Tracker"]:
        """Open a run called `name`; `where` is trackio, wandb (or trackio:PROJECT, wandb:PROJECT), tensorboard:DIR.

        Raises:
            SettingsError: `where` is none of these.
            MissingExtra: the library is not installed.
        """
        library, place = check(where)
        sink = SINKS[library](place, name)
        try:
            yield cls(sink)
        finally:
            sink.close()

    def edit(self, edit: Edit) -> None:
        """Log an edit: its settings, what was measured of it, and each write of its strategy as one step."""
        about = {**asdict(edit.origin), "facts": len(edit.facts), "dropped": len(edit.dropped)}
        about["changes"] = {path: [*delta.shape, delta.rank] for path, delta in edit.deltas.items()}
        self.sink.settings(cast("dict[str, object]", json.loads(json.dumps(about))))
        for step, write in enumerate(edit.history, start=1):
            self._numbers({f"write/{key}": value for key, value in write.items()}, step)
        self._numbers({f"edit/{key}": value for key, value in edit.measured.items()}, len(edit.history))

    def results(self, results: Results) -> None:
        """Log every score that was measured, with the ends of its 95 % interval and the number of records."""
        step = 0
        for phase in cast("tuple[Phase, ...]", ("before", "after")):
            if phase == "after" or results.has_before:
                for name, score in results.scores(phase).items():
                    if score is not None:
                        self._numbers(_score(f"{phase}/{name}", score), step)

    def _numbers(self, values: Mapping[str, object], step: int) -> None:
        """Those of the values that are finite numbers."""
        there = {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, bool | int | float) and math.isfinite(value)
        }
        if there:
            self.sink.numbers(there, step)


def check(where: str) -> tuple[str, str]:
    """The library and the place in it, before hours of work.

    Raises:
        SettingsError: there is no such library here.
        MissingExtra: it is not installed.
    """
    library, _, place = where.partition(":")
    if library not in SINKS:
        raise SettingsError(
            f"There is no tracker {library!r}. Choose one of trackio, trackio:PROJECT, wandb, wandb:PROJECT, "
            "tensorboard:DIR."
        )
    if find_spec(library) is None:
        raise MissingExtra(
            f"Tracking with {library} needs the package {library}: pip install 'errata[track]'. Nothing was run."
        )
    return library, place


def _score(name: str, score: Score) -> dict[str, object]:
    return {
        name: score.mean,
        f"{name}/low": score.low,
        f"{name}/high": score.high,
        f"{name}/count": score.count,
    }


class _TensorBoard:
    """Event files in DIR/NAME."""

    def __init__(self, place: str, name: str) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = SummaryWriter(str(Path(place or RUNS) / name))

    def settings(self, values: Mapping[str, object]) -> None:
        self._writer.add_text("settings", f"```json\n{json.dumps(values, indent=1, ensure_ascii=False)}\n```")

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    """A run of trackio: a file of this machine (under $TRACKIO_DIR) unless its own settings say otherwise."""

    def __init__(self, place: str, name: str) -> None:
        trackio: Any = import_module("trackio")
        self._run: Any = trackio.init(project=place or PROJECT, name=name, embed=False)

    def settings(self, values: Mapping[str, object]) -> None:
        self._run.config.update(values)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Wandb:
    """A run of Weights & Biases; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, place: str, name: str) -> None:
        wandb: Any = import_module("wandb")
        self._run: Any = wandb.init(project=place or PROJECT, name=name)
        self._left: dict[int, dict[str, float]] = {}

    def settings(self, values: Mapping[str, object]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        # wandb takes steps in rising order alone: they are sent together, at the end.
        self._left.setdefault(step, {}).update(values)

    def close(self) -> None:
        for step in sorted(self._left):
            self._run.log(self._left[step], step=step)
        self._run.finish()


SINKS: dict[str, Any] = {"trackio": _Trackio, "wandb": _Wandb, "tensorboard": _TensorBoard}
