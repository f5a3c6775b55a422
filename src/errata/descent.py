"""One batch of the Optimization stage: gradient descent on the values of several facts at once.

    loss = phi * NLL + mu * KL + omega * DECAY                        (PMET eq. 10, MEMIT eq. 16; METHODS.md)

    NLL    mean over contexts of the target's mean token surprisal, with delta added at the lookup position
    KL     KL(P_delta || P_0) of the next token after the subject in "{subject} is a"
    DECAY  ||delta|| / ||v0||^2, one term for each delta

Each fact has its own Adam moments and its own stop; a fact that has stopped leaves the batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from errata.errors import SettingsError
from errata.model import Change, EditableModel
from errata.prompts import PromptBatch

Place = Literal["attention", "ffn", "block"]
PLACES: tuple[Place, ...] = ("attention", "ffn", "block")
LOSS_ENOUGH = 0.05
"""A fact whose loss is below this has nothing left to learn."""
KL_ENOUGH = 0.01
"""With the target on top everywhere, PMET stops once mu * KL is no larger."""
RELAXED = 0.1
"""PMET's factor on phi while the target is on top everywhere."""


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """How the values are optimised. The papers' symbols: mu = kl_weight, phi = nll_weight, omega = decay."""

    layers: tuple[int, ...]
    steps: int
    learning_rate: float
    clamp: float
    decay: float
    kl_weight: float
    nll_weight: float
    kl_position: Literal["subject", "end"]
    optimise: tuple[Place, ...]

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise SettingsError(
                f"Setting 'layers' must be one or more different blocks in ascending order: {self.layers}."
            )
        if self.steps < 1:
            raise SettingsError(
                f"Setting 'steps' must be at least 1 (one pass that only measures): {self.steps}."
            )
        for name in ("learning_rate", "clamp"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"Setting {name!r} must be above 0: {getattr(self, name)}.")
        for name in ("decay", "kl_weight", "nll_weight"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"Setting {name!r} must be 0 or more: {getattr(self, name)}.")
        if not self.optimise or len(set(self.optimise)) != len(self.optimise):
            raise SettingsError(
                f"Setting 'optimise' must name one or more different places of {PLACES}: {self.optimise}."
            )


@dataclass
class Trace:
    """What the optimisation of one fact measured, pass by pass, and why it ended."""

    loss: list[float] = field(default_factory=list[float])
    nll: list[float] = field(default_factory=list[float])
    kl: list[float] = field(default_factory=list[float])
    decay: list[float] = field(default_factory=list[float])
    nll_factor: list[float] = field(default_factory=list[float])
    nll_each: list[list[float]] = field(default_factory=list[list[float]])
    """The unscaled NLL behind each context."""
    deltas: list[dict[Place, Tensor]] = field(default_factory=list[dict[Place, Tensor]])
    """The deltas at which each pass was measured, where asked for."""
    stop: str = ""


def place_path(model: EditableModel, place: Place, layer: int) -> str:
    """The module whose output a delta at `place` is added to."""
    return model.block_path(layer) if place == "block" else model.architecture.site_path(place, layer)


@dataclass(frozen=True)
class Outcome:
    """What the optimisation of one fact ended with."""

    initial: dict[Place, Float[Tensor, " d_model"]]
    delta: dict[Place, Float[Tensor, " d_model"]]
    trace: Trace


@dataclass(frozen=True)
class _Terms:
    """One pass, fact by fact; all but `nll_each` already carry their factors."""

    nll: Float[Tensor, " fact"]
    kl: Float[Tensor, " fact"]
    decay: Float[Tensor, " fact"]
    nll_each: Float[Tensor, "fact context"]
    on_top: Bool[Tensor, " fact"]
    """Whether the target is the argmax at every target position of every context."""

    @property
    def loss(self) -> Float[Tensor, " fact"]:
        return self.nll + self.kl + self.decay


def optimize_batch(
    model: EditableModel, batch: PromptBatch, settings: TargetSettings, relax: bool, record_deltas: bool
) -> list[Outcome]:
    """Run all facts of one batch to their ends; the outcomes come in the batch's order."""
    group = _Group.start(model, batch, settings)
    outcomes: dict[int, Outcome] = {}
    for step in range(settings.steps):
        terms = group.measure()
        group.record(terms, record_deltas)
        ended = group.ended(terms, relax, last=step == settings.steps - 1)
        outcomes.update(group.outcomes(ended))
        going = torch.tensor([not reason for reason in ended], device=batch.fact.device)
        if not going.any():
            break
        group.update(terms)
        group.keep(going.nonzero()[:, 0])
    return [outcomes[index] for index in range(len(outcomes))]


@dataclass
class _Group:
    """The facts of one batch that are still being optimised, and all that belongs to them."""

    model: EditableModel
    settings: TargetSettings
    batch: PromptBatch
    index: list[int]
    """Where each of these facts stood in the batch at the start."""
    traces: list[Trace]
    delta: dict[Place, Float[Tensor, "fact d_model"]]
    adam: dict[Place, "_Adam"]
    factor: Float[Tensor, " fact"]
    initial: dict[Place, Float[Tensor, "fact d_model"]] = field(default_factory=dict[Place, Tensor])
    reference: Float[Tensor, "fact vocab"] | None = None
    """log P_0, the clean distribution at the KL position."""

    @classmethod
    def start(cls, model: EditableModel, batch: PromptBatch, settings: TargetSettings) -> "_Group":
        count = int(batch.fact.max()) + 1
        site = model.site("ffn", settings.layers[-1])
        precise = torch.promote_types(site.weight.dtype, torch.float32)
        zeros = torch.zeros(count, site.d_out, dtype=precise, device=site.weight.device)
        return cls(
            model=model,
            settings=settings,
            batch=batch,
            index=list(range(count)),
            traces=[Trace() for _ in range(count)],
            delta={place: zeros.clone().requires_grad_() for place in settings.optimise},
            adam={
                place: _Adam(settings.learning_rate, zeros.clone(), zeros.clone())
                for place in settings.optimise
            },
            factor=torch.full((count,), settings.nll_weight, dtype=precise, device=batch.fact.device),
        )

    def measure(self) -> _Terms:
        """One forward pass with the deltas where they belong, and every term of the loss."""
        batch, settings = self.batch, self.settings
        kl_row = batch.kl.nonzero()[:, 0]
        last = batch.tokens.mask.sum(dim=1) - 1
        kl_at = (batch.lookup if settings.kl_position == "subject" else last)[kl_row]
        changes = {
            place_path(self.model, place, settings.layers[-1]): self._adder(place) for place in self.delta
        }
        with self.model.hooked(changes, "output"):
            logits = self.model.logits_at(
                batch.tokens, torch.cat([batch.predict_row, kl_row]), torch.cat([batch.predict_at, kl_at])
            )
        logits = logits.to(device=batch.fact.device, dtype=self.factor.dtype)
        log_p = logits.log_softmax(dim=-1)
        count = len(batch.predict_row)
        nll_each, on_top = self._surprisal(log_p[:count])
        return _Terms(
            nll=self.factor * nll_each.mean(dim=1),
            kl=settings.kl_weight * self._divergence(log_p[count:]),
            decay=settings.decay * self._decay(),
            nll_each=nll_each,
            on_top=on_top,
        )

    def _adder(self, place: Place) -> Change:
        """Add each fact's delta at the lookup position of its rows; the first pass reads v0 on its way."""

        def add(value: Tensor) -> Tensor:
            rows = torch.arange(len(self.batch.fact), device=value.device)
            lookup, fact = self.batch.lookup.to(value.device), self.batch.fact.to(value.device)
            if place not in self.initial:
                bare = self.batch.bare.to(value.device)
                self.initial[place] = value.detach()[rows, lookup][bare].to(self.delta[place])
            return value.index_put((rows, lookup), self.delta[place].to(value)[fact], accumulate=True)

        return add

    def _surprisal(
        self, log_p: Float[Tensor, "predicted vocab"]
    ) -> tuple[Float[Tensor, "fact context"], Bool[Tensor, " fact"]]:
        """-(1/T) sum log P(t) of each context, and whether every t is the argmax in all of them."""
        batch = self.batch
        surprisal = -log_p.gather(1, batch.predict_id[:, None])[:, 0]
        rows = torch.zeros(len(batch.fact), dtype=log_p.dtype, device=log_p.device)
        length = rows.index_add(0, batch.predict_row, torch.ones_like(surprisal))
        mean = rows.index_add(0, batch.predict_row, surprisal) / length.clamp(min=1)
        missed = (log_p.argmax(dim=1) != batch.predict_id).to(log_p.dtype)
        misses = rows.index_add(0, batch.predict_row, missed)
        facts = len(self.index)
        return mean[~batch.kl].reshape(facts, -1), (misses[~batch.kl].reshape(facts, -1) == 0).all(dim=1)

    def _divergence(self, log_p: Float[Tensor, "fact vocab"]) -> Float[Tensor, " fact"]:
        """KL(P_delta || P_0) in nats; the first pass, where every delta is zero, gives P_0."""
        if self.reference is None:
            self.reference = log_p.detach()
        return (log_p.exp() * (log_p - self.reference)).sum(dim=1)

    def _decay(self) -> Float[Tensor, " fact"]:
        terms = [_norm(delta) / _norm(self.initial[place]) ** 2 for place, delta in self.delta.items()]
        return torch.stack([term.to(self.factor.device) for term in terms]).sum(dim=0)

    def record(self, terms: _Terms, record_deltas: bool) -> None:
        """Write this pass into the facts' traces."""
        columns = [terms.loss, terms.nll, terms.kl, terms.decay, self.factor]
        numbers = cast(
            "list[list[float]]", torch.stack([column.detach() for column in columns], dim=1).tolist()
        )
        for fact, trace in enumerate(self.traces):
            loss, nll, kl, decay, factor = numbers[fact]
            trace.loss.append(loss)
            trace.nll.append(nll)
            trace.kl.append(kl)
            trace.decay.append(decay)
            trace.nll_factor.append(factor)
            trace.nll_each.append(cast("list[float]", terms.nll_each[fact].detach().tolist()))
            if record_deltas:
                trace.deltas.append(
                    {place: delta[fact].detach().clone() for place, delta in self.delta.items()}
                )

    def ended(self, terms: _Terms, relax: bool, last: bool) -> list[str]:
        """Why each fact stops now ("" goes on), and PMET's phi for the next pass."""
        reasons: list[str] = []
        for fact, trace in enumerate(self.traces):
            loss, kl = trace.loss[-1], trace.kl[-1]
            on_top = relax and bool(terms.on_top[fact])
            if not math.isfinite(loss):
                reasons.append("not finite")
            elif loss < LOSS_ENOUGH:
                reasons.append("loss")
            elif on_top and kl <= KL_ENOUGH:
                reasons.append("argmax and KL")
            else:
                reasons.append("last step" if last else "")
        if relax:
            self.factor = torch.full_like(self.factor, self.settings.nll_weight)
            self.factor[terms.on_top] *= RELAXED
        return reasons

    def outcomes(self, reasons: Sequence[str]) -> dict[int, Outcome]:
        """The facts that stop, by their number in the batch."""
        stopped: dict[int, Outcome] = {}
        for fact, reason in enumerate(reasons):
            if reason:
                self.traces[fact].stop = reason
                stopped[self.index[fact]] = Outcome(
                    {place: value[fact].clone() for place, value in self.initial.items()},
                    {place: delta[fact].detach().clone() for place, delta in self.delta.items()},
                    self.traces[fact],
                )
        return stopped

    def update(self, terms: _Terms) -> None:
        """One Adam step of every delta, then its projection to ||delta|| <= clamp * ||v0||."""
        gradients = torch.autograd.grad(terms.loss.sum(), list(self.delta.values()))
        for (place, delta), gradient in zip(self.delta.items(), gradients, strict=True):
            moved = self.adam[place].step(delta.detach(), gradient)
            limit = self.settings.clamp * _norm(self.initial[place])[:, None]
            norm = _norm(moved)[:, None]
            self.delta[place] = torch.where(norm > limit, moved * (limit / norm), moved)

    def keep(self, going: Tensor) -> None:
        """Leave only the facts in `going`; from here on their deltas are leaves of the next pass."""
        if len(going) < len(self.index):
            chosen = cast("list[int]", going.tolist())
            self.index = [self.index[fact] for fact in chosen]
            self.traces = [self.traces[fact] for fact in chosen]
            self.batch = self.batch.of_facts(going)
            self.factor = self.factor[going]
            self.initial = {place: value[going.to(value.device)] for place, value in self.initial.items()}
            self.reference = None if self.reference is None else self.reference[going]
            for place in self.delta:
                self.adam[place].keep(going)
                self.delta[place] = self.delta[place][going.to(self.delta[place].device)]
        self.delta = {place: delta.detach().requires_grad_() for place, delta in self.delta.items()}


def _norm(vectors: Float[Tensor, "fact d_model"]) -> Float[Tensor, " fact"]:
    return cast(Tensor, torch.linalg.vector_norm(vectors, dim=1))


@dataclass
class _Adam:
    """Adam (Kingma and Ba 2015, alg. 1) with a row of moments for each fact, so that facts can leave."""

    learning_rate: float
    first: Float[Tensor, "fact d_model"]
    second: Float[Tensor, "fact d_model"]
    count: int = 0

    def step(
        self, value: Float[Tensor, "fact d_model"], gradient: Float[Tensor, "fact d_model"]
    ) -> Float[Tensor, "fact d_model"]:
        """The value after one step against the gradient (betas 0.9 and 0.999, eps 1e-8)."""
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        mean = self.first / (1 - 0.9**self.count)
        scale = (self.second / (1 - 0.999**self.count)).sqrt() + 1e-8
        return value - self.learning_rate * mean / scale

    def keep(self, going: Tensor) -> None:
        """Drop the moments of the facts that have left."""
        self.first = self.first[going.to(self.first.device)]
        self.second = self.second[going.to(self.second.device)]
