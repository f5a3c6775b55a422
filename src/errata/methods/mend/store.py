"""Editors on disk, finished and unfinished.

A finished one is a folder: `editor.safetensors` with the tensors, `editor.json` with everything about them. An
unfinished one is a single safetensors file beside the folder-to-be, with the state of its training and, in its header,
which run it is of.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors import SafetensorError
from torch import Tensor

from errata.errors import EditorError, ErrataError
from errata.methods.mend.editor import Editor, Layout
from errata.methods.mend.training import State, TrainingSettings, Validation
from errata.models import EditableModel, almanac_folder
from errata.runtime import (
    DAMAGED,
    Form,
    TensorFile,
    atomic_folder,
    disk_errors,
    from_json,
    open_tensors,
    save_tensors,
    to_json,
    write_tensors,
)
from errata.settings import build

FORMAT = 1
"""The version of the folder's layout."""
TENSORS, ABOUT = "editor.safetensors", "editor.json"
SHIPPED = "shipped"
"""As the setting `editor`: the one that comes with Errata, for the embedded model."""
METADATA = "errata_editor"


@dataclass(frozen=True)
class EditorOrigin:
    """Where an editor comes from, and which model it is for."""

    JSON: ClassVar = Form(exact=True)

    model: str
    revision: str | None
    fingerprint: str
    """Of the weights that it was trained for."""
    model_dtype: str
    settings: Mapping[str, Any]
    seed: int
    facts: str
    """Which facts it was trained on, in words."""
    training: Mapping[str, Any]
    """What was counted and measured while it was trained."""
    versions: Mapping[str, str]
    created: str


@dataclass(frozen=True, eq=False)
class TrainedEditor:
    """An editor as it lies in a file, with no model at hand."""

    tensors: Mapping[str, Tensor]
    origin: EditorOrigin
    settings: TrainingSettings

    def save(self, folder: Path) -> None:
        """Write the editor as a folder, all or nothing.

        Raises:
            OutputExists: the folder is there already and not empty.
            OSError: it cannot be written, for example because the disk is full.
        """
        with disk_errors(f"The editor cannot be written to {folder}"), atomic_folder(folder) as aside:
            write_tensors(aside / TENSORS, self.tensors, {METADATA: str(FORMAT)})
            text = json.dumps({"format": FORMAT, **to_json(self.origin)}, indent=1, ensure_ascii=False)
            (aside / ABOUT).write_text(text + "\n", encoding="utf-8")

    def for_model(self, model: EditableModel) -> Editor:
        """The editor, ready for the model's gradients and on its device.

        Raises:
            EditorError: it was trained for other weights, or its tensors are not those of an editor of this model.
        """
        if self.origin.fingerprint not in (model.fingerprint, model.measure_fingerprint()):
            raise EditorError(
                f"The editor was trained for {self.origin.model} (fingerprint {self.origin.fingerprint[:12]}); "
                f"{model.name} has other weights. Load the model it was trained for, or train an editor for this one: "
                f"`errata train-editor {model.name} --output EDITOR`."
            )
        editor = new_editor(model, self.settings, self.origin.seed)
        expected = cast("dict[str, Tensor]", editor.state_dict())
        for name in expected.keys() ^ self.tensors.keys():
            raise EditorError(
                f"The editor's {TENSORS} and {ABOUT} do not fit: {name!r} is in one of them only."
            )
        for name, tensor in expected.items():
            if tensor.shape != self.tensors[name].shape:
                raise EditorError(
                    f"The editor's {name} is {tuple(self.tensors[name].shape)}, and must be {tuple(tensor.shape)} for "
                    f"{model.name}. Train it again."
                )
        editor.load_state_dict(self.tensors)
        return editor.requires_grad_(False)


def new_editor(model: EditableModel, settings: TrainingSettings, seed: int) -> Editor:
    """An editor before its training, in float32 or the model's wider dtype, on the model's device.

    Raises:
        LayerOutOfRange: the model lacks one of the blocks.
    """
    layout = Layout.of(model, settings.layers, settings.rank, settings.hidden)
    editor = Editor(layout, settings.outputs, settings.alpha, seed)
    return editor.to(device=model.device, dtype=torch.promote_types(model.dtype, torch.float32))


def shipped_folder() -> Path:
    """Where the embedded model's editor lies inside the installed package."""
    return almanac_folder().parent / "mend"


def load_editor(folder: str | Path) -> TrainedEditor:
    """Read an editor that `errata train-editor` wrote; "shipped" is the one of the embedded model.

    Raises:
        EditorError: the folder is no editor, or a file of it is damaged.
    """
    place = shipped_folder() if folder == SHIPPED else Path(folder)
    for name in (ABOUT, TENSORS):
        if not (place / name).is_file():
            raise EditorError(
                f"{place} is no editor: it has no {name}. Give the folder that `errata train-editor` wrote."
            )
    origin, settings = _read_about(place / ABOUT)
    tensors = _read_tensors(place / TENSORS)
    return TrainedEditor(tensors, origin, settings)


def _read_about(file: Path) -> tuple[EditorOrigin, TrainingSettings]:
    try:
        about: object = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise EditorError(f"{file} is not readable JSON: {error}. Copy or train the editor again.") from error
    about = cast("dict[str, Any]", about if isinstance(about, dict) else {})
    if about.pop("format", None) != FORMAT:
        raise EditorError(f"{file} is not an editor of format {FORMAT}, which this version of Errata reads.")
    try:
        origin = from_json(EditorOrigin, about, "it")
        if not origin.fingerprint:
            raise ValueError("it does not say which weights it was trained for")
        return origin, build(TrainingSettings, origin.settings)
    except (ErrataError, TypeError, AttributeError, ValueError) as error:
        raise EditorError(
            f"{file} is not as `errata train-editor` writes it: {error}. Copy or train the editor again."
        ) from error


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        with open_tensors(file) as kept:
            tensors = kept.part()
    except (SafetensorError, OSError) as error:
        raise EditorError(
            f"{file} is cut off or damaged: {error}. Copy or train the editor again."
        ) from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise EditorError(
                f"{file} holds numbers for {name} that are infinite or not a number. Train it again."
            )
    return tensors


# --- unfinished ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """The state of one run in one file."""

    file: Path
    recipe: Mapping[str, Any]
    """All that the run depends on, in the types of JSON."""

    @classmethod
    def beside(cls, output: Path, recipe: Mapping[str, Any]) -> "Checkpoint":
        """The checkpoint of the run that will write `output`."""
        plain = json.loads(json.dumps(recipe))
        return cls(output.with_name(f"{output.name}.partial"), plain)

    def save(self, state: State) -> None:
        """Replace the file, all or nothing.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
        """
        tensors = {f"best/{name}": value for name, value in state.best.items()}
        tensors |= {f"editor/{name}": value for name, value in _state_of(state.editor).items()}
        for name, weight in state.editor.named_parameters():
            adam = cast("dict[str, Tensor]", state.adam.state[weight])
            tensors |= {f"adam/{name}/{key}": value for key, value in adam.items()}
        about = {
            "run": self.recipe,
            "step": state.step,
            "seconds": state.seconds,
            "history": to_json(state.history),
        }
        # One entry alone: several are written in any order, and equal states would be unequal files.
        metadata = {"state": json.dumps(about)}
        save_tensors(self.file, tensors, metadata, f"The unfinished editor cannot be kept in {self.file}")

    def restore(self, state: State) -> bool:
        """Fill the state from the file; false, and nothing done, where there is none.

        Raises:
            EditorError: the file is damaged, or of another run.
        """
        if not self.file.exists():
            return False
        try:
            with open_tensors(self.file) as kept:
                about = cast("dict[str, Any]", json.loads(kept.header["state"]))
                self._check(about["run"])
                self._fill(state, about, kept)
        except DAMAGED as error:
            if isinstance(error, EditorError):
                raise
            raise EditorError(
                f"{self.file} is no unfinished editor, or damaged: {error}. Remove it to start over."
            ) from error
        return True

    def remove(self) -> None:
        """Remove the file, once the editor is written."""
        self.file.unlink(missing_ok=True)

    def _check(self, run: Mapping[str, Any]) -> None:
        """Raise unless the file is of this very run."""
        mine, theirs = _flat(self.recipe), _flat(run)
        differing = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        if differing:
            name = differing[0]
            raise EditorError(
                f"{self.file} is the unfinished editor of another run: its {name} is {theirs.get(name)!r}, here "
                f"{mine.get(name)!r}. Name another output, or remove the file to start over."
            )

    def _fill(self, state: State, about: Mapping[str, Any], kept: TensorFile) -> None:
        device = state.editor.alpha.device
        history = [from_json(Validation, each, "history") for each in about["history"]]
        state.editor.load_state_dict(kept.part("editor/"))
        state.best = {name: value.to(device) for name, value in kept.part("best/").items()}
        for name, weight in state.editor.named_parameters():
            adam = kept.part(f"adam/{name}/")
            state.adam.state[weight] = {
                key: value if key == "step" else value.to(device) for key, value in adam.items()
            }
        state.history, state.step, state.seconds = history, int(about["step"]), float(about["seconds"])


def _state_of(editor: Editor) -> dict[str, Tensor]:
    return cast("dict[str, Tensor]", editor.state_dict())


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with its settings beside the rest."""
    rest = {name: value for name, value in recipe.items() if name != "settings"}
    return {**rest, **{f"setting {name!r}": value for name, value in recipe["settings"].items()}}
