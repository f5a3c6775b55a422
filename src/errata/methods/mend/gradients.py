"""What an editor reads of a model: the input u of a linear map and the gradient d of its output, token by token.

The gradient of a loss for the weight of a linear map is a sum of outer products over tokens,

    dL/dW = sum_t d_t u_t^T        u_t: the map's input at token t; d_t: dL/d(output) there

so a few thin factors say all of it. The same form makes a change cheap to try: W + sum_t a_t b_t^T gives, beside its
old output, sum_t a_t (b_t . x) for the input x, which a hook adds without touching the weight.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from errata.models import Change, EditableModel, Site, Tokens
from errata.passes import EncodedText, pad


@dataclass(frozen=True)
class Readings:
    """Texts as one padded batch, and where they are read: where their answers are predicted, or at their ends."""

    tokens: Tokens
    row: Int[Tensor, " read"]
    at: Int[Tensor, " read"]
    answer: Int[Tensor, " read"]
    """The token that is expected there; -1 where the text has no answer."""

    @classmethod
    def of(cls, model: EditableModel, texts: Sequence[EncodedText]) -> "Readings":
        """The texts in the order given, on the model's device."""
        places = [
            (row, position, token)
            for row, text in enumerate(texts)
            for position, token in (
                zip(text.predicted_at, text.target, strict=True)
                if text.target
                else ((len(text.ids) - 1, -1),)
            )
        ]
        row, at, answer = torch.tensor(places, device=model.device).reshape(-1, 3).unbind(dim=1)
        return cls(pad([text.ids for text in texts], model), row, at, answer)

    @property
    def rows(self) -> int:
        """How many texts there are."""
        return len(self.tokens.ids)

    def log_probabilities(self, model: EditableModel) -> Float[Tensor, "read vocab"]:
        """log P of the next token at every place, in float32 or the model's wider dtype."""
        logits = model.logits_at(self.tokens, self.row, self.at)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)

    def row_means(self, values: Float[Tensor, " read"]) -> Float[Tensor, " row"]:
        """The mean over the places of each text."""
        zeros = torch.zeros(self.rows, dtype=values.dtype, device=values.device)
        row = self.row.to(values.device)
        count = zeros.index_add(0, row, torch.ones_like(values))
        return zeros.index_add(0, row, values) / count

    def surprisal(self, log_p: Float[Tensor, "read vocab"]) -> Float[Tensor, " row"]:
        """-(1/T) sum log P(t) of each text's answer."""
        return self.row_means(-log_p.gather(1, self.answer.to(log_p.device)[:, None])[:, 0])


@dataclass(frozen=True)
class Factors:
    """The gradient of the weight of one map: its factors at each token that has a gradient."""

    inputs: Float[Tensor, "token d_in"]
    """u"""
    gradients: Float[Tensor, "token d_out"]
    """d"""
    row: Int[Tensor, " token"]
    """Which text the token belongs to."""

    def only(self, rows: Bool[Tensor, " row"]) -> "Factors":
        """The tokens of the chosen texts."""
        kept = rows.to(self.row.device)[self.row]
        return Factors(self.inputs[kept], self.gradients[kept], self.row[kept])


@dataclass(frozen=True)
class Update:
    """The change of one weight, sum_t a_t b_t^T."""

    values: Float[Tensor, "token d_out"]
    """a"""
    keys: Float[Tensor, "token d_in"]
    """b"""


def capture(
    model: EditableModel, sites: Sequence[Site], readings: Readings
) -> tuple[Float[Tensor, " row"], dict[str, Factors]]:
    """The loss -(1/T) sum log P(t) of each text, and by path the factors of the gradient of their sum.

    Tokens without a gradient (padding, and what stands behind all that is read) are left out. A text whose loss or
    whose factors are not finite has NaN as its loss and no tokens.
    """
    inputs: dict[str, Tensor] = {}
    probes: dict[str, Tensor] = {}

    def keep(path: str) -> Change:
        return lambda value: inputs.update({path: value.detach()})

    def probe(path: str) -> Change:
        def add_zero(value: Tensor) -> Tensor:
            probes[path] = torch.zeros_like(value).requires_grad_()
            return value + probes[path]

        return add_zero

    paths = [site.path for site in sites]
    with (
        torch.enable_grad(),
        model.hooked({path: keep(path) for path in paths}, "input"),
        model.hooked({path: probe(path) for path in paths}, "output"),
    ):
        loss = readings.surprisal(readings.log_probabilities(model))
        gradients = torch.autograd.grad(loss.sum(), [probes[path] for path in paths])
    loss = loss.detach()
    finite = loss.isfinite()
    found: dict[str, Factors] = {}
    for path, gradient in zip(paths, gradients, strict=True):
        found[path] = _factors(inputs[path], gradient, readings.tokens.mask)
        broken = ~(found[path].inputs.isfinite().all(dim=1) & found[path].gradients.isfinite().all(dim=1))
        finite[found[path].row[broken].to(finite.device)] = False
    loss = loss.masked_fill(~finite, torch.nan)
    return loss, {path: factors.only(finite) for path, factors in found.items()}


def _factors(
    inputs: Float[Tensor, "row seq d_in"],
    gradients: Float[Tensor, "row seq d_out"],
    mask: Bool[Tensor, "row seq"],
) -> Factors:
    chosen = mask.to(gradients.device) & (gradients != 0).any(dim=2)
    return Factors(inputs[chosen], gradients[chosen], chosen.nonzero()[:, 0])


@contextmanager
def updated(model: EditableModel, updates: Mapping[str, Update]) -> Generator[None]:
    """Inside, the model computes as if every update were written; gradients reach the factors, no weight changes."""
    inputs: dict[str, Tensor] = {}

    def keep(path: str) -> Change:
        return lambda value: inputs.update({path: value})

    def add(path: str) -> Change:
        def with_update(output: Tensor) -> Tensor:
            update = updates[path]
            moved = inputs.pop(path).to(update.keys) @ update.keys.T @ update.values
            return output + moved.to(output)

        return with_update

    with (
        model.hooked({path: keep(path) for path in updates}, "input"),
        model.hooked({path: add(path) for path in updates}, "output"),
    ):
        yield
