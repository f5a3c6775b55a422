"""Where a model keeps its facts: causal tracing of many facts, kept fact by fact."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, cast

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from errata.analysis.effects import KINDS, Effects, effects_from_json
from errata.analysis.restoring import Restored, Traceable, noise_scale, restore_everywhere
from errata.errors import FactError, SettingsError
from errata.facts import Fact
from errata.models import EditableModel
from errata.passes import EncodedRow, Row, by_length, encode_rows, pad
from errata.runtime import Progress, Store, digest_of, silent, to_json

VERSION = 1
"""Of how the numbers come about: raised when they change, so that old files are not found any more."""
FACTS_AT_ONCE = 8
"""Fixed: a run that goes on later has the same batches, and so the same numbers to the last bit."""
ROWS_AT_ONCE = 64
PUBLISHED_WINDOW, PUBLISHED_LAYERS = 10, 28
STAGE = "causal tracing"


@dataclass(frozen=True)
class LeftOut:
    """A fact that was not traced, and why."""

    fact: Fact
    reason: str


@dataclass(frozen=True)
class Located:
    """All that a run found. `left_out` are the facts that the model does not know."""

    model: str
    revision: str | None
    fingerprint: str
    layers: int
    samples: int
    window: int
    noise: float
    """In standard deviations of the embeddings."""
    sigma: float
    """That standard deviation."""
    seed: int
    effects: tuple[Effects, ...]
    left_out: tuple[LeftOut, ...] = field(default=())


def usual_window(layers: int) -> int:
    """Ten layers as published (for 28 and more), and the same share of a model that has less."""
    return max(1, min(PUBLISHED_WINDOW, layers * PUBLISHED_WINDOW // PUBLISHED_LAYERS))


@dataclass(frozen=True)
class TraceSettings:
    """How a fact is traced.

    Raises:
        SettingsError: a number without a sense.
    """

    samples: int = 10
    """Draws of noise for each fact."""
    window: int | None = None
    """FFN or attention outputs put back at once; default: `usual_window` of the model's layers."""
    noise: float = 3.0
    """In standard deviations of the embeddings."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that no run can use."""
        if self.samples < 1:
            raise SettingsError(f"samples is {self.samples}. At least one draw of noise is needed.")
        if self.window is not None and self.window < 1:
            raise SettingsError(f"window is {self.window}. It must hold at least one layer.")
        if not self.noise > 0:
            raise SettingsError(f"noise is {self.noise}. It must be more than 0.")


class TraceWords(TypedDict, total=False):
    """The keywords of `locate`: the fields of `TraceSettings` after the number of samples."""

    window: int | None
    noise: float
    seed: int


def locate(
    model: EditableModel,
    facts: Sequence[Fact],
    samples: int = 10,
    *,
    keep_in: Path | None = None,
    on_progress: Progress = silent,
    **words: Unpack[TraceWords],
) -> Located:
    """Trace every fact that the model knows (Meng et al. 2022, section 2 and appendix B).

    `noise` standard deviations of Gaussian noise are added to the embeddings of the subject's tokens, `samples` times;
    then the residual stream behind one block, or the outputs of a `window` of FFNs or attentions, are put back at one
    token. A fact is known if the model, at its likeliest token each time, says `target_true`. Finished facts are kept
    in the folder `keep_in`, if given: a run that was killed goes on and ends with the same numbers.

    Raises:
        FactError: there are no facts, or the model knows none of them.
        PromptTooLong: a fact does not fit the model.
        SettingsError: a number without a sense.
    """
    settings = TraceSettings(samples, **words)
    if not facts:
        raise FactError("There are no facts to trace. Give at least one with a target_true.")
    known, left_out = _known(model, facts)
    if not known:
        raise FactError(
            f"{model.name} knows none of the {len(facts)} facts: it does not answer with their target_true. "
            "Give facts that it knows; `errata evaluate` shows what it answers."
        )
    questions = [Traceable.of(row) for row in known]
    run = _Run.of(model, questions, settings, keep_in)
    return run.located(questions, left_out, on_progress)


@dataclass(frozen=True)
class _Run:
    """What the numbers of a fact depend on, and where they are kept."""

    model: EditableModel
    settings: TraceSettings
    window: int
    sigma: float
    """Standard deviation of the embeddings."""
    fingerprint: str
    store: Store | None

    @classmethod
    def of(
        cls,
        model: EditableModel,
        questions: Sequence[Traceable],
        settings: TraceSettings,
        keep_in: Path | None,
    ) -> "_Run":
        """Measure what the run of these questions begins with."""
        window = usual_window(model.layers) if settings.window is None else settings.window
        sigma = noise_scale(model, questions)
        store = None if keep_in is None else Store(keep_in, "Traces", suffix=".json")
        return cls(model, settings, window, sigma, model.measure_fingerprint(), store)

    @property
    def scale(self) -> float:
        """Standard deviation of the noise."""
        return self.settings.noise * self.sigma

    def located(
        self, questions: Sequence[Traceable], left_out: Sequence[LeftOut], on_progress: Progress
    ) -> Located:
        """Trace all questions, and say how."""
        return Located(
            model=self.model.name,
            revision=self.model.revision,
            fingerprint=self.fingerprint,
            layers=self.model.layers,
            samples=self.settings.samples,
            window=self.window,
            noise=self.settings.noise,
            sigma=self.sigma,
            seed=self.settings.seed,
            effects=tuple(self.effects_of(questions, on_progress)),
            left_out=tuple(left_out),
        )

    def effects_of(self, questions: Sequence[Traceable], on_progress: Progress) -> list[Effects]:
        """Trace all, group by group; what is kept already is taken from there."""
        found: dict[int, Effects] = {}
        total = len(questions) * self._steps
        for group in by_length([len(one.ids) for one in questions], FACTS_AT_ONCE):
            chosen = [questions[number] for number in group]
            done = len(found) * self._steps
            kept = [self._load(one) for one in chosen]
            effects = [one for one in kept if one is not None]
            if len(effects) < len(chosen):
                effects = self._trace(chosen, _counter(on_progress, done, len(chosen), total))
            found.update(zip(group, effects, strict=True))
            on_progress(STAGE, len(found) * self._steps, total)
        return [found[number] for number in range(len(questions))]

    @property
    def _steps(self) -> int:
        return len(KINDS) * self.model.layers

    def _trace(self, questions: Sequence[Traceable], on_layer: Callable[[], None]) -> list[Effects]:
        noises = [self._draw(one) for one in questions]
        numbers = restore_everywhere(self.model, questions, noises, self.window, on_layer)
        effects = [self._effects(one, each) for one, each in zip(questions, numbers, strict=True)]
        for one, each in zip(questions, effects, strict=True):
            self._save(one, each)
        return effects

    def _draw(self, question: Traceable) -> Float[Tensor, "sample token d_model"]:
        """The fact's own draws, the same whatever it is traced with."""
        row = question.row.row
        named = hashlib.sha256(json.dumps([self.settings.seed, row.prompt, row.subject]).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(named[:7], "big"))
        embeddings = self.model.model.get_submodule(self.model.architecture.embeddings)
        shape = (
            self.settings.samples,
            question.subject[1] - question.subject[0],
            embeddings.get_parameter("weight").shape[1],
        )
        return self.scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    def _effects(self, question: Traceable, numbers: Restored) -> Effects:
        row = question.row.row
        return Effects(
            subject=row.subject,
            question=row.prompt,
            answer=row.target or "",
            answer_token=_text(self.model, [question.answer]),
            tokens=tuple(_text(self.model, [token]) for token in question.ids),
            subject_tokens=question.subject,
            clean=numbers.clean,
            noised=numbers.noised,
            restored={
                kind: tuple(map(tuple, cast("list[list[float]]", values.tolist())))
                for kind, values in numbers.restored.items()
            },
        )

    def _load(self, question: Traceable) -> Effects | None:
        """What was kept of this very question; a damaged file counts as nothing."""
        return None if self.store is None else self.store.get(self._key(question), _read_effects)

    def _save(self, question: Traceable, effects: Effects) -> None:
        if self.store is not None:
            text = json.dumps(to_json(effects), ensure_ascii=False)
            self.store.put(self._key(question), lambda aside: aside.write_text(text, encoding="utf-8"))

    def _key(self, question: Traceable) -> str:
        row = question.row.row
        settings = self.settings
        recipe = [VERSION, self.fingerprint, str(self.model.dtype), settings.samples, self.window, self.scale]
        return digest_of([*recipe, settings.seed, row.prompt, row.subject, row.target])


def _read_effects(file: Path) -> Effects:
    return effects_from_json(json.loads(file.read_text(encoding="utf-8")))


def _counter(on_progress: Progress, done: int, facts: int, total: int) -> Callable[[], None]:
    """Tells, each time it is called, that another layer of a group of facts is done."""
    layers = 0

    def report() -> None:
        nonlocal layers
        layers += 1
        on_progress(STAGE, done + layers * facts, total)

    return report


def _known(model: EditableModel, facts: Sequence[Fact]) -> tuple[list[EncodedRow], list[LeftOut]]:
    """The rows of the facts whose target_true the model says, and the others."""
    asked = [
        Row(number, "rewrite", fact.prompt, fact.subject, fact.target_true, join=fact.join)
        for number, fact in enumerate(facts)
        if fact.target_true is not None
    ]
    encoded = encode_rows(model, asked)
    said = dict(_said(model, encoded))
    known = [row for row in encoded if said[row.row.fact] == row.text.target]
    left_out: list[LeftOut] = []
    for number, fact in enumerate(facts):
        if number not in said:
            left_out.append(LeftOut(fact, "it has no target_true"))
    for row in encoded:
        answer = said[row.row.fact]
        if answer != row.text.target:
            words = _text(model, answer).strip()
            left_out.append(LeftOut(facts[row.row.fact], f"the model says {words!r}"))
    return known, left_out


def _said(model: EditableModel, encoded: Sequence[EncodedRow]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """By fact, the likeliest token at each place of its answer.

    Up to the first one that differs from the answer that is what the model writes by itself.
    """
    for group in by_length([len(row.text.ids) for row in encoded], ROWS_AT_ONCE):
        rows = [encoded[number] for number in group]
        tokens = pad([row.text.ids for row in rows], model)
        places = [(number, at) for number, row in enumerate(rows) for at in row.text.predicted_at]
        at = torch.tensor(places, device=model.device)
        with torch.no_grad():
            best = cast("list[int]", model.logits_at(tokens, at[:, 0], at[:, 1]).argmax(dim=-1).tolist())
        for number, row in enumerate(rows):
            mine = [token for (owner, _), token in zip(places, best, strict=True) if owner == number]
            yield row.row.fact, tuple(mine)


def _text(model: EditableModel, tokens: Sequence[int]) -> str:
    return str(model.tokenizer.decode(list(tokens)))
