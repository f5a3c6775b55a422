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
    quick: Mapping[str, object] = field(default_factory=lambda: {"steps": 1})
    """Over any preset or the rule: what makes a run short."""
    preset: str = "llama-2-iterative"
    """A preset of some other model."""
    samples_contexts: bool = True
    post_norm: bool = True
    """Whether families are edited that normalise after the FFN."""
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
        layers = cast("list[int]", self.settings["layers"])
        return {**self.settings, **self.own(model, layers)}


STEPWISE: tuple[Refusal, ...] = (
    ({"learning_rat": 1}, errors.UnknownSetting, "no setting 'learning_rat'. Did you mean 'learning_rate'?"),
    ({"layers": []}, errors.SettingsError, "'layers' must be one or more different blocks"),
    ({"steps": 0}, errors.SettingsError, "'steps' must be at least 1"),
    ({"clamp": "wide"}, errors.SettingsError, "'clamp' is 'wide'. It must be a number"),
    ({"optimise": ["attention"]}, errors.SettingsError, "to optimise ["),
    ({"optimise": ["block", "ffn"]}, errors.SettingsError, "'optimise' is ['block', 'ffn']; "),
)
"""Of every method that optimises values."""
SPREADING: tuple[Refusal, ...] = (
    ({"layers": [1, 9]}, errors.LayerOutOfRange, "names block 9, but tiny-gpt2 has blocks 0 to 3"),
    ({"spread": "cubic"}, errors.SettingsError, "It must be one of 'sqrt', 'even'"),
)
STRONG = {"clamp": 3.0, "learning_rate": 0.5, "steps": 6}
LATE: dict[str, object] = {
    "late_layers": [3],
    "late_steps": 4,
    "late_learning_rate": 0.2,
    "late_clamp": 0.75,
    "late_kl_weight": 0.5,
    "late_nll_weight": 1.0,
    "late_covariance_weight": 20.0,
}
NULL_SPACE = {"null_threshold": 0.1, "ridge": 1.0}
CASES: dict[str, Case] = {
    "pmet": Case(
        settings=SETTINGS,
        strong={**STRONG, "covariance_weight": 0.1},
        written=down_projections(1, 2),
        stages={"optimization": (4, 3), "spread": (2, 0)},
        refused=(*STEPWISE, *SPREADING),
    ),
    "memit": Case(
        settings=SETTINGS,
        strong={**STRONG, "covariance_weight": 0.1},
        written=down_projections(1, 2),
        post_norm=False,
        stages={"optimization": (4, 3), "spread": (2, 0)},
        refused=(
            *STEPWISE,
            *SPREADING,
            (
                {"write": ["ffn", "attention"]},
                errors.SettingsError,
                "'write' is ['ffn', 'attention']; memit writes ['ffn'] only",
            ),
        ),
    ),
    "alphaedit": Case(
        settings={**{k: v for k, v in SETTINGS.items() if k != "covariance_weight"}, **NULL_SPACE},
        strong={**STRONG, "ridge": 0.01, "null_threshold": 10.0},
        written=down_projections(1, 2),
        preset="llama-3",
        post_norm=False,
        stages={"optimization": (4, 3), "spread": (2, 0)},
        refused=(
            *STEPWISE,
            *SPREADING,
            ({"ridge": 0}, errors.SettingsError, "'ridge' must be above 0"),
            (
                {"null_threshold": 1e-12},
                errors.SettingsError,
                "no eigenvalue of the second moments of transformer.h.1.mlp.c_proj is that small",
            ),
        ),
    ),
    "two_site": Case(
        settings={**SETTINGS, **LATE},
        strong={**STRONG, "covariance_weight": 0.1, "late_covariance_weight": 0.1},
        written=down_projections(1, 2, 3),
        quick={"steps": 1, "late_steps": 1, "late_layers": [3]},
        preset="almanac",
        post_norm=False,
        stages={
            "optimization": (4, 7),
            "spread": (2, 4),
            "optimization, late site": (4, 3),
            "spread, late site": (1, 0),
        },
        refused=(
            *STEPWISE,
            *SPREADING,
            ({"late_layers": [9]}, errors.LayerOutOfRange, "names block 9, but tiny-gpt2 has blocks 0 to 3"),
            ({"late_layers": [2]}, errors.SettingsError, "all late layers must lie above the early ones"),
            ({"late_steps": 0}, errors.SettingsError, "'late_steps' must be at least 1"),
            ({"late_clamp": -1}, errors.SettingsError, "'late_clamp' must be above 0"),
            (
                {"late_optimise": ["ffn", "block"]},
                errors.SettingsError,
                "'late_optimise' is ['ffn', 'block']; two_site takes",
            ),
            ({"late_key_templates": -1}, errors.SettingsError, "'late_key_templates' must be 0 or more"),
        ),
    ),
    "rome": Case(
        settings={"layers": [2], "steps": 4, "learning_rate": 0.2, "clamp": 0.75, "kl_weight": 0.5},
        strong=STRONG,
        written=down_projections(2),
        refused=(
            *STEPWISE,
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
