"""One batch of the Optimization stage: gradient descent on the values of several facts at once.

`losses.py` says what is minimised. Each fact has its own Adam moments and its own stop; a fact that has stopped leaves
the batch. Every pass is resumed from the edited block and token (`resume.py`).
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from errata.models import Change, EditableModel
from errata.passes import Part, PromptBatch, Resumed
from errata.values.losses import (
    Surprisal,
    Terms,
    by_context,
    divergence,
    mean_by_fact,
    neighbor_mean,
    published_nll,
    targets_on_top,
)
from errata.values.settings import Place, ValueSettings, ValueSite

LOSS_ENOUGH = 0.05
"""A fact whose loss is below this has nothing left to learn."""
KL_ENOUGH = 0.01
"""With the target on top everywhere, PMET stops once mu * KL is no larger."""
RELAXED = 0.1
"""PMET's factor on phi while the target is on top everywhere."""


@dataclass
class Trace:
    """What the optimisation of one fact measured, pass by pass, and why it ended."""

    loss: list[float] = field(default_factory=list[float])
    nll: list[float] = field(default_factory=list[float])
    kl: list[float] = field(default_factory=list[float])
    decay: list[float] = field(default_factory=list[float])
    neighbor: list[float] = field(default_factory=list[float])
    preserve: list[float] = field(default_factory=list[float])
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
    rung: int = 0
    """Of the ladder (`ladder.py`) on which it was found; 0: with the settings as they are."""
    found: bool = True
    """Whether the target is as likely as `values.least_probability` asks."""

    @property
    def probability(self) -> float:
        """To which it brings the target: the geometric mean over tokens and contexts; NaN where there is none."""
        each = self.trace.nll_each[-1]
        return math.exp(-math.fsum(each) / len(each)) if all(map(math.isfinite, each)) else math.nan


Unedited = Callable[[], AbstractContextManager[object]]
"""Inside what it gives, the weights are the unedited model's."""


def optimize_batch(
    model: EditableModel,
    batch: PromptBatch,
    site: ValueSite,
    relax: bool,
    record_deltas: bool,
    unedited: Unedited = nullcontext,
) -> list[Outcome]:
    """Run all facts of one batch to their ends; the outcomes come in the batch's order."""
    group = _Group.start(model, batch, site, unedited)
    outcomes: dict[int, Outcome] = {}
    for step in range(site.values.steps):
        terms = group.measure()
        group.record(terms, record_deltas)
        ended = group.ended(terms, relax, last=step == site.values.steps - 1)
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
    settings: ValueSettings
    layer: int
    """Where the values stand."""
    batch: PromptBatch
    index: list[int]
    """Where each of these facts stood in the batch at the start."""
    traces: list[Trace]
    delta: dict[Place, Float[Tensor, "fact d_model"]]
    optimizer: dict[Place, "_Adam | _Gradient"]
    factor: Float[Tensor, " fact"]
    resumed: Resumed
    initial: dict[Place, Float[Tensor, "fact d_model"]]
    preserved: Float[Tensor, "row vocab"]
    """log P_0 of the rows that are to be preserved, of the unedited model."""
    reference: Float[Tensor, "fact vocab"] | None = None
    """log P_0, the clean distribution at the KL position."""

    @classmethod
    def start(cls, model: EditableModel, batch: PromptBatch, site: ValueSite, unedited: Unedited) -> "_Group":
        count, layer, settings = int(batch.fact.max()) + 1, site.layers[-1], site.values
        ffn = model.site("ffn", layer)
        precise = torch.promote_types(ffn.weight.dtype, torch.float32)
        zeros = torch.zeros(count, ffn.d_out, dtype=precise, device=ffn.device)
        entry = layer + 1 if settings.optimize == ("block",) else layer
        return cls(
            model=model,
            settings=settings,
            layer=layer,
            batch=batch,
            index=list(range(count)),
            traces=[Trace() for _ in range(count)],
            delta={place: zeros.clone().requires_grad_() for place in settings.optimize},
            optimizer={place: _optimizer(settings, zeros) for place in settings.optimize},
            factor=torch.full((count,), settings.nll_weight, dtype=precise, device=batch.fact.device),
            resumed=Resumed.of(model, batch, entry, _last_read(batch, settings), inside=entry == layer),
            initial={place: zeros.clone() for place in settings.optimize},
            preserved=_clean_log_p(model, batch, precise, unedited),
        )

    def measure(self) -> Terms:
        """One forward pass with the deltas where they belong, and every term of the loss."""
        batch, settings = self.batch, self.settings
        kl_row, kept_row = batch.rows_of("kl"), batch.rows_of("preserve")
        last = _last_read(batch, settings)
        logits = self.resumed.logits_at(
            torch.cat([batch.predict_row, kl_row, kept_row]),
            torch.cat([batch.predict_at, last[kl_row], last[kept_row]]),
            self._changes,
        )
        counts = [len(batch.predict_row), len(kl_row), len(kept_row)]
        precise = logits.to(device=batch.fact.device, dtype=self.factor.dtype)
        answers, neutral, kept = cast("list[Tensor]", precise.split(counts))
        neutral, kept = neutral.log_softmax(dim=-1), kept.log_softmax(dim=-1)
        self.reference = neutral.detach() if self.reference is None else self.reference
        surprisal = Surprisal.of_logits(answers, batch)
        nll_each = by_context(surprisal.mean, batch)
        published, weight = settings.neighbor_loss == "published", settings.neighbor_weight
        nll = published_nll(surprisal, batch, weight) if published else nll_each.mean(dim=1)
        preserve = divergence(kept, self.preserved)
        return Terms(
            nll=self.factor * nll,
            kl=settings.kl_weight * divergence(neutral, self.reference),
            decay=settings.decay * self._decay(),
            neighbor=(0.0 if published else weight) * neighbor_mean(surprisal, batch),
            preserve=settings.preserve_weight * mean_by_fact(preserve, batch.fact[kept_row], len(self.index)),
            nll_each=nll_each,
            on_top=targets_on_top(surprisal, batch, neighbors_too=published),
        )

    def _changes(self, part: Part) -> dict[str, Change]:
        """What a part of the batch has added to its outputs: each fact's deltas."""
        return {place_path(self.model, place, self.layer): self._adder(place, part) for place in self.delta}

    def _adder(self, place: Place, part: Part) -> Change:
        """Add each fact's delta at the lookup position of its rows; the first pass reads v0 on its way."""

        def add(value: Tensor) -> Tensor:
            rows = torch.arange(len(part.rows), device=value.device)
            lookup = (self.batch.lookup[part.rows] - part.start).to(value.device)
            fact = self.batch.fact[part.rows].to(value.device)
            if self.reference is None:
                bare = self.batch.bare[part.rows].to(value.device)
                found = value.detach()[rows, lookup][bare]
                self.initial[place][fact[bare]] = found.to(self.initial[place])
            return value.index_put((rows, lookup), self.delta[place].to(value)[fact], accumulate=True)

        return add

    def _decay(self) -> Float[Tensor, " fact"]:
        terms = [_norm(delta) / _norm(self.initial[place]) ** 2 for place, delta in self.delta.items()]
        return torch.stack([term.to(self.factor.device) for term in terms]).sum(dim=0)

    def record(self, terms: Terms, record_deltas: bool) -> None:
        """Write this pass into the facts' traces."""
        columns = [terms.loss, terms.nll, terms.kl, terms.decay, terms.neighbor, terms.preserve, self.factor]
        numbers = cast(
            "list[list[float]]", torch.stack([column.detach() for column in columns], dim=1).tolist()
        )
        for fact, trace in enumerate(self.traces):
            loss, nll, kl, decay, neighbor, preserve, factor = numbers[fact]
            trace.loss.append(loss)
            trace.nll.append(nll)
            trace.kl.append(kl)
            trace.decay.append(decay)
            trace.neighbor.append(neighbor)
            trace.preserve.append(preserve)
            trace.nll_factor.append(factor)
            trace.nll_each.append(cast("list[float]", terms.nll_each[fact].detach().tolist()))
            if record_deltas:
                trace.deltas.append(
                    {place: delta[fact].detach().clone() for place, delta in self.delta.items()}
                )

    def ended(self, terms: Terms, relax: bool, last: bool) -> list[str]:
        """Why each fact stops now ("" goes on), and PMET's phi for the next pass."""
        reasons: list[str] = []
        probability = self.settings.stop_probability
        enough = -math.inf if probability is None else -math.log(probability)
        for fact, trace in enumerate(self.traces):
            loss, kl = trace.loss[-1], trace.kl[-1]
            on_top = relax and bool(terms.on_top[fact]) and self._reaches(trace)
            if not math.isfinite(loss):
                reasons.append("not finite")
            elif loss < LOSS_ENOUGH:
                reasons.append("loss")
            elif on_top and kl <= KL_ENOUGH:
                reasons.append("argmax and KL")
            elif max(trace.nll_each[-1]) <= enough:
                reasons.append("probability")
            else:
                reasons.append("last step" if last else "")
        if relax:
            self.factor = torch.full_like(self.factor, self.settings.nll_weight)
            self.factor[terms.on_top] *= RELAXED
        return reasons

    def _reaches(self, trace: Trace) -> bool:
        """Whether the target is as likely as a value must make it: no fact stops content before."""
        least, each = self.settings.least_probability, trace.nll_each[-1]
        return least is None or math.fsum(each) / len(each) <= -math.log(least)

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

    def update(self, terms: Terms) -> None:
        """One step of every delta, then its projection to ||delta|| <= clamp * ||v0||."""
        gradients = torch.autograd.grad(terms.loss.sum(), list(self.delta.values()))
        for (place, delta), gradient in zip(self.delta.items(), gradients, strict=True):
            moved = self.optimizer[place].step(delta.detach(), gradient, self._rate(place))
            limit = self.settings.clamp * _norm(self.initial[place])[:, None]
            norm = _norm(moved)[:, None]
            self.delta[place] = torch.where(norm > limit, moved * (limit / norm), moved)

    def _rate(self, place: Place) -> float | Float[Tensor, "fact 1"]:
        """The learning rate: a number, or of each fact by the size of its clean value."""
        scale = self.settings.learning_rate_scale
        if scale is not None:
            value = self.initial[place]
            return scale * (_norm(value) / value.shape[1] ** 0.5)[:, None]
        assert self.settings.learning_rate is not None
        return self.settings.learning_rate

    def keep(self, going: Tensor) -> None:
        """Leave only the facts in `going`; from here on their deltas are leaves of the next pass."""
        if len(going) < len(self.index):
            chosen = cast("list[int]", going.tolist())
            self.index = [self.index[fact] for fact in chosen]
            self.traces = [self.traces[fact] for fact in chosen]
            self.preserved = self.preserved[self._kept(going)]
            self.batch, rows = self.batch.of_facts(going)
            self.resumed = self.resumed.keep(rows)
            self.factor = self.factor[going]
            self.initial = {place: value[going.to(value.device)] for place, value in self.initial.items()}
            self.reference = None if self.reference is None else self.reference[going]
            for place in self.delta:
                self.optimizer[place].keep(going)
                self.delta[place] = self.delta[place][going.to(self.delta[place].device)]
        self.delta = {place: delta.detach().requires_grad_() for place, delta in self.delta.items()}

    def _kept(self, going: Int[Tensor, " kept"]) -> Int[Tensor, " row"]:
        """Which of the preserved rows belong to the facts in `going`."""
        fact = self.batch.fact[self.batch.rows_of("preserve")]
        return torch.isin(fact, going).nonzero()[:, 0]


def _last_read(batch: PromptBatch, settings: ValueSettings) -> Int[Tensor, " row"]:
    """The last position of each row that the loss reads: its end, or the subject's for the neutral prompt's KL."""
    last = batch.tokens.mask.sum(dim=1) - 1
    if settings.kl_position == "subject":
        last[batch.rows_of("kl")] = batch.lookup[batch.rows_of("kl")]
    return last


def _clean_log_p(
    model: EditableModel, batch: PromptBatch, dtype: torch.dtype, unedited: Unedited
) -> Float[Tensor, "row vocab"]:
    """log P_0 of the next token after each row that is to be preserved."""
    rows = batch.rows_of("preserve")
    if not len(rows):
        # Not len(model.tokenizer): the head may have more rows than there are tokens, or less.
        return torch.zeros(0, model.vocabulary, dtype=dtype, device=batch.fact.device)
    tokens = batch.tokens.rows(rows)
    with unedited(), torch.no_grad():
        logits = model.logits_at(tokens, torch.arange(len(rows)), tokens.mask.sum(dim=1) - 1)
    return logits.to(device=batch.fact.device, dtype=dtype).log_softmax(dim=-1)


def _norm(vectors: Float[Tensor, "fact d_model"]) -> Float[Tensor, " fact"]:
    return cast(Tensor, torch.linalg.vector_norm(vectors, dim=1))


def _optimizer(settings: ValueSettings, zeros: Float[Tensor, "fact d_model"]) -> "_Adam | _Gradient":
    return _Adam(zeros.clone(), zeros.clone()) if settings.optimizer == "adam" else _Gradient()


class _Gradient:
    """Steps along the negative gradient, all of one length: rate * sqrt(d_model).

    Adam moves every coordinate by about the rate, whether the target depends on it or not. A step along the gradient of
    the same length reaches the target with a shorter delta, which spills less onto other prompts (decision 0018).
    """

    def step(
        self,
        value: Float[Tensor, "fact d_model"],
        gradient: Float[Tensor, "fact d_model"],
        rate: float | Float[Tensor, "fact 1"],
    ) -> Float[Tensor, "fact d_model"]:
        """The value after one step; where the gradient is 0, as it was."""
        size = _norm(gradient)[:, None].clamp_min(torch.finfo(gradient.dtype).tiny)
        return value - rate * value.shape[1] ** 0.5 * (gradient / size)

    def keep(self, going: Tensor) -> None:
        """Nothing is remembered between steps."""


@dataclass
class _Adam:
    """Adam (Kingma and Ba 2015, alg. 1) with a row of moments for each fact, so that facts can leave."""

    first: Float[Tensor, "fact d_model"]
    second: Float[Tensor, "fact d_model"]
    count: int = 0

    def step(
        self,
        value: Float[Tensor, "fact d_model"],
        gradient: Float[Tensor, "fact d_model"],
        rate: float | Float[Tensor, "fact 1"],
    ) -> Float[Tensor, "fact d_model"]:
        """The value after one step against the gradient (betas 0.9 and 0.999, eps 1e-8)."""
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        mean = self.first / (1 - 0.9**self.count)
        scale = (self.second / (1 - 0.999**self.count)).sqrt() + 1e-8
        return value - rate * mean / scale

    def keep(self, going: Tensor) -> None:
        """Drop the moments of the facts that have left."""
        self.first = self.first[going.to(self.first.device)]
        self.second = self.second[going.to(self.second.device)]
