"""The training of an editor: Adam on `Objective.losses`, early stopping by facts that are held back.

The statistics of the networks' inputs are measured over the first facts and fixed from then on. What a step draws
depends on the seed and the step's number alone, so a run that goes on from a checkpoint ends with the same bits.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor

from errata.errors import EditorError, SettingsError
from errata.methods.mend.editor import Editor, Outputs
from errata.methods.mend.examples import Draw, Example, Kept, draw
from errata.methods.mend.objective import Objective
from errata.models import EditableModel
from errata.passes import encode_text
from errata.runtime import Progress

STAGE = "training"
TEXTS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What is edited, how large the networks are, what a step draws, and how long it goes on.

    `layers`: the blocks whose FFNs are edited. `rank`, `hidden`, `outputs`: see `errata.methods.mend.editor`. `alpha`:
    the learned rate at first; `alpha_rate`: its own learning rate. `schedule`: of the learning rates; "cosine" takes
    them down to zero at the last step. `edit_weight`: c_edit. `at_once`: how many facts are one edit, one of these
    numbers at each draw; `written_rows` and `kept_rows`: questions of each kind that are asked of each of its facts;
    `kept`: where the latter come from. `accumulate`: edits whose losses are one step. `largest_gradient`: the norm that
    a step's gradient is clipped to. `statistics`: facts that mean and std are measured over. `validation`: facts that
    are held back; every `validate_every` steps the loss of `validation_edits` edits of these is measured, and after
    `patience` times without a new best the training ends.
    """

    layers: tuple[int, ...]
    rank: int
    hidden: int
    outputs: Outputs
    alpha: float
    steps: int
    learning_rate: float
    alpha_rate: float
    schedule: Literal["constant", "cosine"]
    edit_weight: float
    at_once: tuple[int, ...]
    written_rows: int
    kept_rows: int
    kept: tuple[Kept, ...]
    accumulate: int
    largest_gradient: float
    statistics: int
    validation: int
    validation_edits: int
    validate_every: int
    patience: int

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise SettingsError(
                f"Setting 'layers' must be one or more different blocks: {list(self.layers)}."
            )
        counts = (
            "rank steps written_rows accumulate validation validation_edits validate_every patience".split()
        )
        least = {**dict.fromkeys(counts, 1), "hidden": 0, "kept_rows": 0, "statistics": 2}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise SettingsError(f"Setting {name!r} must be at least {lowest}: {getattr(self, name)}.")
        for name in ("learning_rate", "edit_weight", "largest_gradient"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"Setting {name!r} must be above 0: {getattr(self, name)}.")
        if self.alpha_rate < 0 or not math.isfinite(self.alpha):
            raise SettingsError("Setting 'alpha_rate' must be 0 or more, and 'alpha' finite.")
        if not self.at_once or min(self.at_once) < 1:
            raise SettingsError(
                f"Setting 'at_once' must be numbers of facts, each at least 1: {self.at_once}."
            )

    def rate(self, step: int) -> float:
        """The learning rates' factor at that step, the first being 0."""
        return 1.0 if self.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class Validation:
    """The losses of the edits that judge, after so many steps."""

    step: int
    nll: float
    kl: float
    loss: float


@dataclass
class State:
    """All of a run that changes."""

    editor: Editor
    adam: torch.optim.Adam
    best: dict[str, Tensor]
    """The editor's tensors at the lowest validation loss."""
    history: list[Validation] = field(default_factory=list[Validation])
    step: int = 0
    """How many are done."""
    seconds: float = 0.0
    """Training time, earlier starts included."""

    @classmethod
    def fresh(cls, editor: Editor, settings: TrainingSettings) -> "State":
        """The state before the first step."""
        networks = [weight for name, weight in editor.named_parameters() if name != "alpha"]
        adam = torch.optim.Adam(
            [
                {"params": networks, "lr": settings.learning_rate},
                {"params": [editor.alpha], "lr": settings.alpha_rate},
            ]
        )
        return cls(editor, adam, _copied(editor))

    @property
    def best_at(self) -> int:
        """The number in the history of the lowest loss."""
        return min(range(len(self.history)), key=lambda number: self.history[number].loss)

    def ended(self, settings: TrainingSettings) -> bool:
        """Whether all steps are done, or the loss has not fallen for too long."""
        stale = bool(self.history) and len(self.history) - 1 - self.best_at >= settings.patience
        return stale or self.step >= settings.steps


@dataclass(frozen=True)
class Course:
    """A training run: an editor's examples and settings."""

    objective: Objective
    training: Sequence[Example]
    validation: Sequence[Example]
    settings: TrainingSettings
    seed: int

    @property
    def model(self) -> EditableModel:
        """The model whose edits are learned."""
        return self.objective.model

    def measure_statistics(self) -> None:
        """Mean and std of every map's (u, d) over the first facts of the training."""
        facts = [example.fact for example in self.training[: self.settings.statistics]]
        texts = [encode_text(self.model, fact.question, fact.target_new, fact.join) for fact in facts]
        parts = [
            self.objective.factors(tuple(texts[start : start + TEXTS_AT_ONCE]))
            for start in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        self.objective.editor.measure(parts)

    def run(self, state: State, after_step: Callable[[], None], on_progress: Progress) -> None:
        """Train until the state has ended; `after_step` is called when all of a step is in the state.

        Raises:
            EditorError: the loss or its gradient is not a number.
        """
        judging = [self._draw(self.validation, "validation", number) for number in self._judging]
        if not state.history:
            state.history.append(self._validate(0, judging))
        on_progress(STAGE, state.step, self.settings.steps)
        while not state.ended(self.settings):
            self._step(state)
            state.step += 1
            last = state.step == self.settings.steps
            if last or state.step % self.settings.validate_every == 0:
                state.history.append(self._validate(state.step, judging))
                if state.best_at == len(state.history) - 1:
                    state.best = _copied(state.editor)
            after_step()
            on_progress(STAGE, state.step, self.settings.steps)

    def _step(self, state: State) -> None:
        """One step of Adam, over `accumulate` edits."""
        state.adam.zero_grad()
        for part in range(self.settings.accumulate):
            number = state.step * self.settings.accumulate + part
            losses = self.objective.losses(self._draw(self.training, "training", number))
            (losses.total(self.settings.edit_weight) / self.settings.accumulate).backward()  # pyright: ignore
        norm = torch.nn.utils.clip_grad_norm_(state.editor.parameters(), self.settings.largest_gradient)
        if not bool(norm.isfinite()):
            raise _not_finite(state.step + 1)
        for group, rate in zip(
            state.adam.param_groups, (self.settings.learning_rate, self.settings.alpha_rate), strict=True
        ):
            group["lr"] = rate * self.settings.rate(state.step)
        state.adam.step()

    @property
    def _judging(self) -> range:
        return range(self.settings.validation_edits)

    def _draw(self, examples: Sequence[Example], use: str, number: int) -> Draw:
        rng = random.Random(f"{self.seed}/{use}/{number}")
        return draw(
            self.model,
            examples,
            self.settings.at_once,
            self.settings.written_rows,
            self.settings.kept_rows,
            rng,
        )

    def _validate(self, step: int, judging: Sequence[Draw]) -> Validation:
        with torch.no_grad():
            found = [self.objective.losses(drawn) for drawn in judging]
        nll = sum(float(each.nll) for each in found) / len(found)
        kl = sum(float(each.kl) for each in found) / len(found)
        loss = self.settings.edit_weight * nll + kl
        if not math.isfinite(loss):
            raise _not_finite(step)
        return Validation(step, nll, kl, loss)


def _not_finite(step: int) -> EditorError:
    return EditorError(
        f"At step {step} the loss or its gradient became infinite or not a number. Set a smaller 'learning_rate', "
        "'alpha_rate' or 'alpha', or load the model in bfloat16 or float32."
    )


def _copied(editor: Editor) -> dict[str, Tensor]:
    return {
        name: value.detach().clone() for name, value in cast("dict[str, Tensor]", editor.state_dict()).items()
    }
