"""Editors for the tiny models: as they are before training, or trained for a moment."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from errata.methods.mend.store import EditorOrigin, TrainedEditor, new_editor
from errata.methods.mend.training import TrainingSettings
from errata.models.model import EditableModel
from errata.settings.schema import build

TRAINING: dict[str, object] = {
    "layers": [1, 2],
    "rank": 8,
    "hidden": 1,
    "outputs": "gradient",
    "alpha": 0.05,
    "steps": 12,
    "learning_rate": 1e-3,
    "alpha_rate": 1e-3,
    "schedule": "constant",
    "edit_weight": 1.0,
    "at_once": [1, 2],
    "written_rows": 1,
    "kept_rows": 2,
    "kept": ["neighborhood", "unrelated"],
    "accumulate": 1,
    "largest_gradient": 100.0,
    "statistics": 4,
    "validation": 2,
    "validation_edits": 3,
    "validate_every": 4,
    "patience": 50,
}
"""All settings of a training that lasts a moment."""


def training_settings(**given: object) -> TrainingSettings:
    """Those, with some of them changed."""
    return build(TrainingSettings, TRAINING, given)


def untrained(model: EditableModel, **given: object) -> TrainedEditor:
    """The editor before its first step: what it makes of a gradient is that gradient, times -alpha."""
    settings = training_settings(**given)
    origin = EditorOrigin(
        model=model.name,
        revision=None,
        fingerprint=model.fingerprint,
        model_dtype=str(model.dtype).removeprefix("torch."),
        settings=asdict(settings),
        seed=0,
        facts="none",
        training={},
        versions={},
        created="now",
    )
    return TrainedEditor(new_editor(model, settings, 0).state_dict(), origin, settings)


@cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="errata-editors-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@cache
def _folder(model: EditableModel, layers: tuple[int, ...]) -> str:
    folder = Path(tempfile.mkdtemp(dir=_root()))
    untrained(model, layers=layers).save(folder)
    return str(folder)


def editor_for(model: EditableModel, layers: Sequence[int]) -> Mapping[str, object]:
    """The setting `editor`: a folder with the untrained editor of these blocks."""
    return {"editor": _folder(model, tuple(layers))}
