"""`train_editor`: from a model and facts to an editor on disk; killed at any moment, the same call goes on."""

import datetime
import logging
import os
import platform
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

from typing_extensions import Unpack

from errata.errors import FactError
from errata.facts import Fact
from errata.methods.mend.examples import Example, encode_example, split
from errata.methods.mend.objective import Objective
from errata.methods.mend.store import Checkpoint, EditorOrigin, TrainedEditor, new_editor
from errata.methods.mend.training import Course, State, TrainingSettings
from errata.models import EditableModel
from errata.runtime import Progress, digest_of, refuse_existing, silent, to_json
from errata.settings import Preset, build, load_presets

logger = logging.getLogger(__name__)

PRESETS = "training/mend"
VERSION = 1
"""Of how editors are trained: raised when the numbers change, so that no run goes on from another one's state."""


@dataclass(frozen=True)
class Bookkeeping:
    """What is kept of a training beside the editor itself."""

    source: str = ""
    """Which facts these are, in words, for the record."""
    keep_every: int = 50
    """Steps after which the state is saved each time."""


class BookkeepingWords(TypedDict, total=False):
    """The fields of `Bookkeeping`, as keywords of `train_editor`."""

    source: str
    keep_every: int


@dataclass(frozen=True)
class _Keeper:
    """Saves the state after every so many steps, and counts the time."""

    checkpoint: Checkpoint
    state: State
    every: int
    began: float
    before: float

    def __call__(self) -> None:
        self.state.seconds = self.before + time.monotonic() - self.began
        if self.state.step % self.every == 0:
            self.checkpoint.save(self.state)


def train_editor(
    model: EditableModel,
    facts: Sequence[Fact],
    output: str | os.PathLike[str],
    settings: Mapping[str, object] | None = None,
    seed: int = 0,
    *,
    on_progress: Progress = silent,
    **words: Unpack[BookkeepingWords],
) -> TrainedEditor:
    """Train MEND's editor for the model on the facts, and write it to the folder `output`; the model stays as it is.

    `settings` goes over the preset; `source` says in words which facts these are, for the record. The state is kept in
    `output`.partial every `keep_every` steps: a run that was killed goes on from there and ends with the same editor.

    Raises:
        UnknownSetting, SettingsError, LayerOutOfRange: a setting that cannot be.
        FactError: too few facts, or a question that does not fit the model.
        EditorError: the loss is not a number, or the unfinished run is another one's.
        OutputExists: the output is there already.
    """
    folder, books = Path(output), Bookkeeping(**words)
    refuse_existing(folder)
    values, preset = training_settings(model, settings or {})
    editor = new_editor(model, values, seed)
    objective = Objective.of(model, editor, values.layers)
    course = Course(objective, *_examples(model, facts, values, seed), values, seed)
    recipe = _recipe(course, facts)
    checkpoint = Checkpoint.beside(folder, recipe)
    state = _first_state(course, checkpoint)
    keeper = _Keeper(checkpoint, state, books.keep_every, time.monotonic(), state.seconds)
    course.run(state, keeper, on_progress)
    trained = TrainedEditor(state.best, _origin(course, state, preset, facts, books.source, recipe), values)
    trained.save(folder)
    checkpoint.remove()
    return trained


def training_settings(model: EditableModel, given: Mapping[str, object]) -> tuple[TrainingSettings, Preset]:
    """The settings of a training: the model's preset or the rule, and over it what is given.

    Raises:
        UnknownSetting, SettingsError, LayerOutOfRange: as `errata.settings` tells, or a block that is not there.
    """
    preset = load_presets(PRESETS).among(model.editable_layers).for_model(model.name, model.layers)
    if preset.rule is not None and not preset.by_rule <= given.keys():
        logger.warning("%s", preset.rule)
    values = build(TrainingSettings, preset.values, given)
    for layer in values.layers:
        model.check_layer(layer)
    return values, preset


def _examples(
    model: EditableModel, facts: Sequence[Fact], settings: TrainingSettings, seed: int
) -> tuple[list[Example], list[Example]]:
    """What is trained on and what is held back; every question is tokenised once, so that misfits are told now."""
    if not facts:
        raise FactError("There are no facts to train on. Give files of them.")
    examples = [Example.of(fact, settings.kept) for fact in facts]
    for example in examples:
        encode_example(model, example)
    return split(examples, settings.validation, random.Random(f"{seed}/split"))


def _recipe(course: Course, facts: Sequence[Fact]) -> dict[str, Any]:
    """All that the editor depends on."""
    return {
        "version": VERSION,
        "model": course.model.measure_fingerprint(),
        "dtype": str(course.model.dtype).removeprefix("torch."),
        "seed": course.seed,
        "facts": digest_of(to_json(facts)),
        "settings": asdict(course.settings),
    }


def _first_state(course: Course, checkpoint: Checkpoint) -> State:
    """Where an unfinished run stopped, or a fresh state, which is then kept."""
    editor, settings = course.objective.editor, course.settings
    state = State.fresh(editor, settings)
    if not checkpoint.restore(state):
        course.measure_statistics()
        state = State.fresh(editor, settings)
        checkpoint.save(state)
    return state


def _origin(
    course: Course,
    state: State,
    preset: Preset,
    facts: Sequence[Fact],
    source: str,
    recipe: Mapping[str, Any],
) -> EditorOrigin:
    model, best = course.model, state.history[state.best_at]
    return EditorOrigin(
        model=model.name,
        revision=model.revision,
        fingerprint=recipe["model"],
        model_dtype=recipe["dtype"],
        settings=recipe["settings"],
        seed=course.seed,
        facts=source,
        training={
            "preset": f"{preset.name} ({preset.source})",
            "facts": len(facts),
            "facts_digest": recipe["facts"],
            "trained_on": len(course.training),
            "held_back": len(course.validation),
            "parameters": sum(weight.numel() for weight in state.editor.parameters()),
            "steps": state.step,
            "stopped_early": state.step < course.settings.steps,
            "seconds": round(state.seconds, 1),
            "first": asdict(state.history[0]),
            "best": asdict(best),
            "history": [asdict(each) for each in state.history],
        },
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("errata", "torch", "transformers", "safetensors")},
        },
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
