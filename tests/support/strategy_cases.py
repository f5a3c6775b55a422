"""Edits of the tiny model in steps, and what the strategies' tests compare."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import errata
from errata.facts.fact import Fact
from errata.models.model import EditableModel
from errata.moments.collection import collect
from errata.planning.plan import prepare
from errata.planning.request import EditRequest
from errata.runtime.progress import Progress, silent
from errata.strategies import steps
from errata.strategies.steps import Strategy
from families import CONTEXTS, FACTS, SENTENCES, SETTINGS, tiny_model
from method_cases import LATE, at

WIDE = {**SETTINGS, "solve.covariance_weight": 0.5, "values.clamp": 3.0, "values.learning_rate": 0.5}


def collect_moments(folder: Path) -> Path:
    """Second moments of the tiny model, in a folder for each dtype."""
    for dtype in ("float32", "float64"):
        model = tiny_model("gpt2", dtype)
        sites = [model.site("ffn", layer) for layer in (0, 1, 2)]
        collect(model, sites, SENTENCES * 5, folder=folder / dtype, corpus="sentences", samples=25)
    return folder


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def assert_untouched(model: EditableModel, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())


def settings_of(method: str) -> dict[str, object]:
    """`WIDE` in the settings that the method has."""
    if method == "rome":
        return {
            **{name: value for name, value in WIDE.items() if name != "solve.covariance_weight"},
            "layers": [1],
        }
    if method == "alphaedit":
        kept = {name: value for name, value in WIDE.items() if name != "solve.covariance_weight"}
        return {**kept, "solve.threshold": 1e3, "solve.ridge": 1e-3}
    if method == "two_site":
        # Statements to preserve are compared with the unedited model, which an edit of an edited one does not know.
        return {
            **at("early.", WIDE),
            "early.layers": [1],
            "early.values.preserve": "none",
            **LATE,
            "late.layers": [2],
            "late.solve.covariance_weight": 0.5,
        }
    return WIDE


def stepped(
    moments: Path,
    method: str = "memit",
    facts: Sequence[Fact] = FACTS,
    dtype: str = "float64",
    keep_in: Path | None = None,
    on_progress: Progress = silent,
    on_write: steps.OnWrite | None = None,
    **strategy: object,
) -> errata.Edit:
    request = EditRequest(
        facts,
        method,
        settings_of(method),
        contexts=CONTEXTS,
        covariance=moments / dtype,
        strategy=Strategy(**strategy),  # type: ignore[arg-type]
        keep_in=keep_in,
    )
    return prepare(tiny_model("gpt2", dtype), request).run(on_progress, on_write)
