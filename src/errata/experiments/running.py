"""Runs the cells of a recipe and stores each as it is done: a run that was stopped goes on with the next one.

A cell is a JSON file, written last, and one file of raw outcomes per evaluation beside it. Scores are computed from
the raw outcomes when they are asked for.
"""

import json
import logging
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from errata.edits import Delta, Edit
from errata.errors import ErrataError, FactError
from errata.evaluation import EvaluationWords, evaluate
from errata.experiments.cells import EMBEDDED, Cell, Request, weight
from errata.experiments.sources import facts_for, me_ppl_50_texts
from errata.facts import Fact
from errata.models import EditableModel
from errata.planning import EditRequest, find_neighbors, kept_values, prepare
from errata.results import GROUPS, Results, load_results
from errata.runtime import Progress, atomic_file, silent, to_json
from errata.settings import DEFAULT
from errata.strategies import Strategy

logger = logging.getLogger(__name__)

SCHEMA = 1
CELLS = "cells"
GENERATED = ("generation_accuracy", "whole_answer_accuracy")
"""Columns that need the model to write greedily."""
SAMPLED = ("fluency", "consistency")
"""Columns that need the model to write at random."""


@dataclass(frozen=True)
class Stored:
    """A cell that is done, as it lies on disk."""

    path: Path
    about: Mapping[str, Any]

    @property
    def steps(self) -> list[int]:
        """The iterations after which the model was evaluated; 0 stands for the end of a cell without iterations."""
        return cast("list[int]", self.about["steps"])

    def results(self, step: int) -> Results:
        """The raw outcomes after an iteration.

        Raises:
            ResultsError: the file is damaged.
        """
        return load_results(outcomes_file(self.path, step))

    @property
    def seconds(self) -> float:
        """How long it took, evaluation included."""
        return float(self.about["seconds"]["edit"]) + float(self.about["seconds"]["evaluation"])


def cell_file(folder: Path, cell: Cell) -> Path:
    """Where a cell is stored in the output folder of a recipe."""
    return folder / CELLS / f"{cell.name}.json"


def outcomes_file(path: Path, step: int) -> Path:
    """The raw outcomes of a cell after an iteration."""
    return path.with_name(f"{path.stem}.{step}.jsonl")


def stored(folder: Path, cell: Cell) -> Stored | None:
    """The cell if it is done; what cannot be read is not done, and is run again."""
    path = cell_file(folder, cell)
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        there = all(outcomes_file(path, step).is_file() for step in about["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Stored(path, about) if there and about.get("schema") == SCHEMA else None


def run_cells(
    model: EditableModel | Callable[[], EditableModel],
    request: Request,
    folder: Path,
    on_progress: Progress = silent,
) -> dict[str, str]:
    """Run what is not stored yet; the cells that failed, each with the reason.

    `model` may be a function that loads it: it is not called where nothing is left to run.

    Raises:
        ErrataError: the reason of the first failure, where no cell at all was run.
        CheckpointError, ModelError: the model cannot be loaded.
    """
    cells = request.cells
    total = sum(weight(cell) for cell in cells)
    done = sum(weight(cell) for cell in cells if stored(folder, cell))
    on_progress("facts to write", done, total)
    failed: dict[str, str] = {}
    first: ErrataError | None = None
    for cell in cells:
        if stored(folder, cell):
            continue
        if not isinstance(model, EditableModel):
            model = model()
        try:
            run_cell(model, cell, cell_file(folder, cell), on_progress)
        except ErrataError as error:
            logger.warning("%s, %d edits: %s", cell.row.name, cell.edits, error)
            failed[cell.name] = str(error)
            first = first or error
        done += weight(cell)
        on_progress("facts to write", done, total)
    if first is not None and len(failed) == len(cells):
        raise first
    return failed


def run_cell(model: EditableModel, cell: Cell, path: Path, on_progress: Progress = silent) -> None:
    """Edit, evaluate, store; the JSON is written last, so that half a cell is no cell.

    Raises:
        ErrataError: what `errata.edit`, `errata.evaluate` or the facts raise.
    """
    facts = facts_for(cell)
    qualified: dict[str, object] = {}
    if cell.request.recipe.neighbors:
        facts, qualified = _with_neighbors(model, facts, cell, on_progress)
    if cell.request.recipe.analysis is not None:
        about = _analysed(model, facts, cell, on_progress)
    else:
        about = _edited(model, facts, cell, path, on_progress)
    whole: dict[str, object] = {
        "schema": SCHEMA,
        "kind": "errata cell",
        "recipe": cell.request.recipe.name,
        "row": cell.row.name,
        **cell.described(),
        "fingerprint": model.fingerprint,
        "revision": model.revision,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "facts": len(facts),
        "qualified": qualified,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("errata", "torch", "transformers")},
        },
        **about,
    }
    with atomic_file(path) as aside:
        aside.write_text(json.dumps(whole, indent=1, ensure_ascii=False, default=str), encoding="utf-8")


def _with_neighbors(
    model: EditableModel, facts: Sequence[Fact], cell: Cell, on_progress: Progress
) -> tuple[list[Fact], dict[str, object]]:
    """The facts that qualify for neighbor-assisted editing, with their neighbors (paper 2, appendix B.2).

    Raises:
        FactError: none does.
    """
    found = find_neighbors(model, facts, cell.request.seed, on_progress=on_progress)
    if not found.facts:
        raise FactError(
            f"None of the {len(facts)} facts has neighbors that the model answers as the data say. Take other facts."
        )
    return list(found.facts), {"drawn": len(facts), "kept": len(found.facts)}


def _analysed(
    model: EditableModel, facts: Sequence[Fact], cell: Cell, on_progress: Progress
) -> dict[str, object]:
    from errata.analysis import component_similarity

    began = time.perf_counter()
    found = component_similarity(model, facts, on_progress=on_progress)
    seconds = {"edit": 0.0, "evaluation": round(time.perf_counter() - began, 3)}
    return {"steps": [], "seconds": seconds, "similarity": to_json(found)}


def _edited(
    model: EditableModel, facts: Sequence[Fact], cell: Cell, path: Path, on_progress: Progress
) -> dict[str, object]:
    """Edit and evaluate; raw outcomes are stored at once."""
    asked = _asked(model, cell)
    evaluating, steps, tokens = 0.0, list[int](), set[int]()

    def measure(step: int) -> None:
        nonlocal evaluating
        began = time.perf_counter()
        results = evaluate(model, facts, on_progress=on_progress, **asked)
        _store(results, outcomes_file(path, step))
        steps.append(step)
        tokens.update(tokens_of(results))
        evaluating += time.perf_counter() - began

    if cell.row.method is None:
        measure(0)
        seconds = {"edit": 0.0, "evaluation": round(evaluating, 3)}
        return {"steps": steps, "seconds": seconds, "token_texts": token_texts(model, tokens)}
    began = time.perf_counter()
    found = _make(model, facts, cell, measure if cell.each_write else None, on_progress)
    editing = time.perf_counter() - began - evaluating
    if not cell.each_write:
        with found.applied(model):
            measure(len(found.history))
    return {
        "steps": steps,
        "seconds": {"edit": round(editing, 3), "evaluation": round(evaluating, 3)},
        "settings_used": dict(found.origin.settings),
        "preset_used": found.origin.preset,
        "contexts": list(found.origin.contexts),
        "covariance": found.origin.covariance,
        "history": [dict(write) for write in found.history],
        "norms": [_norm(model, path, delta) for path, delta in found.deltas.items()],
        "token_texts": token_texts(model, tokens),
        "dropped": [{"subject": one.fact.subject, "reason": one.reason} for one in found.dropped],
    }


def _asked(model: EditableModel, cell: Cell) -> EvaluationWords:
    """What the columns of the recipe need to have asked. Almanac has its own reference texts and its own plain ones."""
    from errata.almanac import corpus_texts, world_references

    columns, embedded = cell.request.recipe.columns, model.name == EMBEDDED
    sampled = any(name in SAMPLED for name in columns)
    texts: Sequence[str] = ()
    if "me_ppl_50" in columns:
        texts = corpus_texts(0, 50, held_out=True) if embedded else me_ppl_50_texts(cell.data)
    return {
        "generate": any(name in GENERATED for name in columns),
        "trustworthy": any(
            group.optional and f"{group.name}_accuracy" in columns for group in GROUPS.values()
        ),
        "fluency": sampled,
        "references": world_references() if embedded and sampled else None,
        "texts": texts,
        "seed": cell.request.seed,
    }


def _make(
    model: EditableModel,
    facts: Sequence[Fact],
    cell: Cell,
    on_write: Callable[[int], None] | None,
    on_progress: Progress,
) -> Edit:
    """The edit of a cell, through the door that everybody uses."""
    assert cell.row.method is not None
    strategy = replace(Strategy(), **cast("dict[str, Any]", cell.strategy)) if cell.strategy else None
    request = EditRequest(
        facts,
        cell.row.method,
        cell.row.settings,
        preset=cell.preset or DEFAULT,  # published numbers, whatever the user has calibrated
        strategy=strategy,
        keep_in=kept_values(),
        seed=cell.request.seed,
        check=False,
    )
    return prepare(model, request).run(on_progress, on_write)


def _store(results: Results, path: Path) -> None:
    """Keep raw outcomes, over those of a run that was stopped before its cell was done."""
    path.unlink(missing_ok=True)
    results.save(path)


def _norm(model: EditableModel, path: str, delta: Delta) -> dict[str, object]:
    """The Frobenius norm of a change, and where it is."""
    site = model.site_at(path)
    norm = float(delta.matrix.double().square().sum().sqrt())
    return {"kind": site.kind, "layer": site.layer, "path": path, "norm": norm}


def tokens_of(results: Results) -> set[int]:
    """Every token of a wanted answer: what a report needs the texts of."""
    questions = [question for record in results.records for question in record.after.questions]
    return {token for question in questions for token in question.wanted.tokens}


def token_texts(model: EditableModel, tokens: Iterable[int]) -> dict[str, str]:
    """The text of each token by its number."""
    return {str(token): str(model.tokenizer.decode([token])) for token in sorted(tokens)}
