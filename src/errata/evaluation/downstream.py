"""Downstream tasks, before and after an edit: the lm-evaluation-harness asks the model object itself.

The harness settles prompts, metrics and standard errors (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).
"""

from __future__ import annotations

import copy
import difflib
import logging
import math
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from errata.edits import Edit
from errata.errors import MissingExtra, SettingsError, UnknownSetting
from errata.evaluation.harness import tasks_folder
from errata.models import EditableModel
from errata.runtime import Form, Progress, silent, to_json

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

PACKAGE = "lm_eval"
SCHEMA = 1
BATCH = 16
BOOTSTRAPS = 1000
"""Draws for the standard error of a metric that is not a mean; the harness's 100,000 take minutes a task."""
OTHERS_SHOWN = 5


def _finite(value: float | None) -> float | None:
    """The value; None for what is not a number."""
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Measure:
    """The value of a metric with its standard error, where the harness can tell it."""

    value: Annotated[float, Form(write=_finite)]
    stderr: float | None


@dataclass(frozen=True)
class TaskRow:
    """One metric of one task; `before` is None where there was no edit to be without."""

    JSON: ClassVar = Form(computed={"change": lambda row: _finite(row.change)})

    task: str
    metric: str
    higher_is_better: bool | None
    samples: int | None
    before: Measure | None
    after: Measure

    @property
    def change(self) -> float | None:
        """After minus before."""
        return None if self.before is None else self.after.value - self.before.value


@dataclass(frozen=True)
class Downstream:
    """What the harness measured."""

    rows: tuple[TaskRow, ...]
    harness: str
    """Its version."""
    limit: int | None

    def to_json(self) -> dict[str, object]:
        """All as a JSON object."""
        return {
            "kind": "errata downstream tasks",
            "schema": SCHEMA,
            "harness": self.harness,
            "limit": self.limit,
            "tasks": to_json(self.rows),
        }


@dataclass(frozen=True)
class Tasks:
    """Tasks that are there, and the folders and the file of facts that they are read from."""

    names: tuple[str, ...]
    limit: int | None
    manager: TaskManager

    def run(
        self,
        model: EditableModel,
        edit: Edit | None = None,
        seed: int = 0,
        on_progress: Progress = silent,
    ) -> Downstream:
        """Measure without the edit and with it, or the model as it stands; it is then as it was.

        Raises:
            AlreadyApplied, WrongModel: the edit is in the model already, or belongs to another one.
            OSError: the data of a task cannot be had.
        """
        if edit is None:
            before, after = {}, self._measure(model, "tasks as it stands", seed, on_progress)
        else:
            before = self._measure(model, "tasks before", seed, on_progress)
            with edit.applied(model):
                after = self._measure(model, "tasks after", seed, on_progress)
        rows = [
            TaskRow(task, metric, better, samples, None if edit is None else before[task, metric][2], measure)
            for (task, metric), (better, samples, measure) in after.items()
        ]
        return Downstream(tuple(rows), version(PACKAGE), self.limit)

    def _measure(
        self, model: EditableModel, stage: str, seed: int, on_progress: Progress
    ) -> dict[tuple[str, str], tuple[bool | None, int | None, Measure]]:
        from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportUnknownVariableType]
        from lm_eval.models.huggingface import HFLM

        found: dict[tuple[str, str], tuple[bool | None, int | None, Measure]] = {}
        on_progress(stage, 0, len(self.names))
        with redirect_stdout(sys.stderr), _quietly():
            tokenizer = copy.deepcopy(
                model.tokenizer
            )  # the harness gives it a padding token where it has none
            answering = HFLM(pretrained=model.model, tokenizer=tokenizer, batch_size=BATCH)  # pyright: ignore
            for done, name in enumerate(self.names, start=1):
                said = simple_evaluate(
                    model=answering,
                    tasks=[name],
                    limit=self.limit,
                    task_manager=self.manager,
                    bootstrap_iters=BOOTSTRAPS,
                    log_samples=False,
                    random_seed=seed,
                    numpy_random_seed=seed,
                    torch_random_seed=seed,
                    fewshot_random_seed=seed,
                )
                found.update(_rows(cast("Mapping[str, object]", said)))
                on_progress(stage, done, len(self.names))
        return found


@contextmanager
def _quietly() -> Generator[None]:
    """Inside, the harness keeps its remarks on how it was called to itself."""
    logger = logging.getLogger(PACKAGE)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def find_tasks(
    names: Sequence[str],
    include: Path | None = None,
    limit: int | None = None,
    facts: Path | None = None,
) -> Tasks:
    """Look the tasks up among the harness's own, ours (CounterFact, zsRE on the file `facts`), and those in `include`.

    Raises:
        MissingExtra: the harness is not installed.
        UnknownSetting: there is no such task.
        SettingsError: no names, a limit below 1, or no such folder.
    """
    if find_spec(PACKAGE) is None:
        raise MissingExtra(
            "Downstream tasks are run by the lm-evaluation-harness, which is not installed: pip install 'errata[eval]'."
        )
    from lm_eval.tasks import TaskManager

    if not names:
        raise SettingsError("There are no tasks to run. Name some: lambada_openai,mmlu")
    if limit is not None and limit < 1:
        raise SettingsError(f"The limit of documents is {limit}. It must be at least 1.")
    if include is not None and not include.is_dir():
        raise SettingsError(
            f"There is no folder of tasks {include}. Name one with YAML files of the harness."
        )
    folders = [tasks_folder(), *([] if include is None else [include])]
    metadata: dict[str, dict[str, Any] | str] = {} if facts is None else {"facts": str(facts)}
    manager = TaskManager(include_path=list(map(str, folders)), metadata=metadata)
    known = list(manager.all_tasks)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=OTHERS_SHOWN)
            hint = f" Near to it: {', '.join(close)}." if close else ""
            raise UnknownSetting(
                f"There is no task {name!r}.{hint} The harness has {len(known)} (`lm-eval ls tasks` lists them); your "
                "own are found with --tasks-path."
            )
    return Tasks(tuple(dict.fromkeys(names)), limit, manager)


def _rows(
    said: Mapping[str, object],
) -> dict[tuple[str, str], tuple[bool | None, int | None, Measure]]:
    """The harness's answer: by task, "metric,filter" and "metric_stderr,filter"."""
    found: dict[tuple[str, str], tuple[bool | None, int | None, Measure]] = {}
    better = cast("Mapping[str, Mapping[str, bool]]", said.get("higher_is_better", {}))
    counts = cast("Mapping[str, Mapping[str, int]]", said.get("n-samples", {}))
    for task, values in cast("Mapping[str, Mapping[str, object]]", said["results"]).items():
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = values.get(f"{metric}_stderr,{chosen}")
            error = float(stderr) if isinstance(stderr, int | float) and math.isfinite(stderr) else None
            name = metric if chosen == "none" else f"{metric} ({chosen})"
            found[task, name] = (
                better.get(task, {}).get(metric),
                counts.get(task, {}).get("effective"),
                Measure(float(value), error),
            )
    return found
