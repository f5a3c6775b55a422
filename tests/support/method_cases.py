"""How the tests run each method of the registry: a new method is one entry of `CASES`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from errata import errors
from errata.models.model import EditableModel
from families import SETTINGS
from mend_editors import editor_for

Refusal = tuple[dict[str, object], type[Exception], str]
"""Settings over the case's own, and the error that they end in."""


def all_maps(*layers: int) -> Callable[[EditableModel], set[str]]:
    """The paths of every map of the FFNs."""
    return lambda model: {path for layer in layers for path in model.architecture.ffn_paths(layer)}


def down_projections(*layers: int) -> Callable[[EditableModel], set[str]]:
    """Their paths."""
    return lambda model: {model.site("ffn", layer).path for layer in layers}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the tests over the registry must know of a method."""

    settings: Mapping[str, object]
    """Under which every tiny model is edited in a moment."""
    strong: Mapping[str, object]
    """Over these, settings under which a random model learns easy facts."""
    written: Callable[[EditableModel], set[str]]
    """The paths that an edit with these settings changes."""
    quick: Mapping[str, object] = field(default_factory=lambda: {"values.steps": 1})
    """Over any preset or the rule: what makes a run short."""
    layers: str = "layers"
    """The setting that names the first blocks to write."""
    preset: str = "llama-2-iterative"
    """A preset of some other model."""
    samples_contexts: bool = True
    moments: bool = True
    """Whether second moments are needed."""
    stages: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """Where a run of `FACTS` is killed by the tests: how many units the stage has, and how many batches of values are
    computed again. Empty for a method whose own tests kill it."""
    own: Callable[[EditableModel, Sequence[int]], Mapping[str, object]] = lambda model, layers: {}
    """What the settings must have for one model and these layers in particular."""
    refused: tuple[Refusal, ...] = ()

    def given(self, model: EditableModel) -> dict[str, object]:
        """The settings for a model."""
        layers = cast("list[int]", self.settings[self.layers])
        return {**self.settings, **self.own(model, layers)}


def at(path: str, settings: Mapping[str, object]) -> dict[str, object]:
    """The settings of a site whose paths begin so."""
    return {f"{path}{name}": value for name, value in settings.items()}


def stepwise(path: str = "") -> tuple[Refusal, ...]:
    """Of every method that optimizes values, at the site whose settings begin with `path`."""
    values = f"{path}values."
    return (
        (
            {f"{values}learning_rat": 1},
            errors.UnknownSetting,
            f"no setting '{values}learning_rat'. Did you mean '{values}learning_rate'?",
        ),
        ({"steps": 1}, errors.UnknownSetting, f"Setting 'steps' is now '{values}steps'."),
        ({f"{path}layers": []}, errors.SettingsError, f"'{path}layers' must be one or more different blocks"),
        ({f"{values}steps": 0}, errors.SettingsError, f"'{values}steps' must be at least 1"),
        ({f"{values}clamp": "wide"}, errors.SettingsError, f"'{values}clamp' is 'wide'. It must be a number"),
        ({f"{values}optimize": ["attention"]}, errors.SettingsError, "to optimize ["),
        (
            {f"{values}optimize": ["block", "ffn"]},
            errors.SettingsError,
            f"'{values}optimize' is ['block', 'ffn']; ",
        ),
    )


def spreading(path: str = "") -> tuple[Refusal, ...]:
    """Of every method that shares the residual out over layers."""
    return (
        (
            {f"{path}layers": [1, 9]},
            errors.LayerOutOfRange,
            "names block 9, but tiny-gpt2 has blocks 0 to 3",
        ),
        ({f"{path}spread.share": "cubic"}, errors.SettingsError, "It must be one of 'sqrt', 'even'"),
    )


STRONG = {"values.clamp": 3.0, "values.learning_rate": 0.5, "values.steps": 6}
LATE: dict[str, object] = {
    "late.layers": [3],
    "late.values.steps": 4,
    "late.values.learning_rate": 0.2,
    "late.values.clamp": 0.75,
    "late.values.kl_weight": 0.5,
    "late.values.nll_weight": 1.0,
    "late.solve.covariance_weight": 20.0,
}
NULL_SPACE = {"solve.threshold": 0.1, "solve.ridge": 1.0}
CASES: dict[str, Case] = {
    "pmet": Case(
        settings=SETTINGS,
        strong={**STRONG, "solve.covariance_weight": 0.1},
        written=down_projections(1, 2),
        stages={"optimization": (4, 3), "spread": (2, 0)},
        refused=(*stepwise(), *spreading()),
    ),
    "memit": Case(
        settings=SETTINGS,
        strong={**STRONG, "solve.covariance_weight": 0.1},
        written=down_projections(1, 2),
        stages={"optimization": (4, 3), "spread": (2, 0)},
        refused=(
            *stepwise(),
            *spreading(),
            (
                {"spread.write": ["ffn", "attention"]},
                errors.SettingsError,
                "'spread.write' is ['ffn', 'attention']; memit writes ['ffn'] only",
            ),
        ),
    ),
    "alphaedit": Case(
        settings={**{k: v for k, v in SETTINGS.items() if k != "solve.covariance_weight"}, **NULL_SPACE},
        strong={**STRONG, "solve.ridge": 0.01, "solve.threshold": 10.0},
        written=down_projections(1, 2),
        preset="llama-3",
        stages={"optimization": (4, 3), "spread": (2, 0)},
        refused=(
            *stepwise(),
            *spreading(),
            ({"solve.ridge": 0}, errors.SettingsError, "'solve.ridge' must be above 0"),
            (
                {"solve.threshold": 1e-12},
                errors.SettingsError,
                "no eigenvalue of the second moments of transformer.h.1.mlp.c_proj is that small",
            ),
        ),
    ),
    "two_site": Case(
        settings={**at("early.", SETTINGS), **LATE},
        strong={
            **at("early.", STRONG),
            "early.solve.covariance_weight": 0.1,
            "late.solve.covariance_weight": 0.1,
        },
        written=down_projections(1, 2, 3),
        layers="early.layers",
        quick={"early.values.steps": 1, "late.values.steps": 1, "late.layers": [3]},
        preset="almanac",
        stages={
            "optimization": (4, 7),
            "spread": (2, 4),
            "optimization, late site": (4, 3),
            "spread, late site": (1, 0),
        },
        refused=(
            *stepwise("early."),
            *spreading("early."),
            (
                {"late.layers": [9]},
                errors.LayerOutOfRange,
                "Setting 'late.layers' names block 9, but tiny-gpt2 has blocks 0 to 3",
            ),
            ({"late.layers": [2]}, errors.SettingsError, "all late layers must lie above the early ones"),
            ({"late.values.steps": 0}, errors.SettingsError, "'late.values.steps' must be at least 1"),
            ({"late.values.clamp": -1}, errors.SettingsError, "'late.values.clamp' must be above 0"),
            (
                {"late.values.optimize": ["ffn", "block"]},
                errors.SettingsError,
                "'late.values.optimize' is ['ffn', 'block']; two_site takes",
            ),
            ({"late.keys.templates": -1}, errors.SettingsError, "'late.keys.templates' must be 0 or more"),
        ),
    ),
    "rome": Case(
        settings={
            "layers": [2],
            "values.steps": 4,
            "values.learning_rate": 0.2,
            "values.clamp": 0.75,
            "values.kl_weight": 0.5,
        },
        strong=STRONG,
        written=down_projections(2),
        refused=(
            *stepwise(),
            ({"layers": [1, 2]}, errors.SettingsError, "'layers' must be one block for rome"),
        ),
    ),
    "finetune": Case(
        settings={"layers": [2], "epochs": 2, "batch_size": 2},
        strong={"learning_rate": 2e-3, "epochs": 8},
        written=down_projections(2),
        quick={"epochs": 1},
        preset="local",
        samples_contexts=False,
        moments=False,
        refused=(
            ({"epoch": 1}, errors.UnknownSetting, "no setting 'epoch'. Did you mean 'epochs'?"),
            ({"layers": []}, errors.SettingsError, "'layers' must be one or more different blocks"),
            ({"layers": [2, 2]}, errors.SettingsError, "'layers' must be one or more different blocks"),
            ({"epochs": 0}, errors.SettingsError, "'epochs' must be at least 1"),
            ({"batch_size": 0}, errors.SettingsError, "'batch_size' must be at least 1"),
            ({"learning_rate": 0}, errors.SettingsError, "'learning_rate' must be above 0"),
            ({"norm_bound": 0}, errors.SettingsError, "'norm_bound' must be above 0, or none"),
            ({"weight_decay": -1}, errors.SettingsError, "'weight_decay' must be 0 or more, or 'by_count'"),
            ({"weight_decay": "some"}, errors.SettingsError, "one of 'by_count' or a number"),
            ({"stop_loss": -1}, errors.SettingsError, "'stop_loss' must be 0 or more"),
            ({"weights": "head"}, errors.SettingsError, "It must be one of 'block', 'ffn', 'down'"),
        ),
    ),
    "mend": Case(
        settings={"layers": [1, 2]},
        strong={},
        written=all_maps(1, 2),
        quick={},
        preset="gpt-j",
        samples_contexts=False,
        moments=False,
        own=editor_for,
        refused=(
            ({"edito": "x"}, errors.UnknownSetting, "no setting 'edito'. Did you mean 'editor'?"),
            ({"layers": []}, errors.SettingsError, "'layers' must be one or more different blocks"),
            ({"layers": [2, 3]}, errors.SettingsError, "writes blocks [1, 2]. Set layers=1,2"),
            ({"editor": "none"}, errors.SettingsError, "train-editor tiny-gpt2"),
            ({"editor": "nowhere"}, errors.EditorError, "nowhere is no editor: it has no editor.json"),
        ),
    ),
}
