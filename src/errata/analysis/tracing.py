"""Causal tracing: which hidden states carry a fact to the answer (Meng et al. 2022, section 2).

The embeddings of the subject are drowned in noise, so the model no longer knows whom it is asked about. Then a single
hidden state is put back to what it was without noise. Where that brings the answer back, the fact passes through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from errata.errors import FactError
from errata.facts import Fact
from errata.models import Change, EditableModel, Tokens
from errata.passes import EncodedRow, Row, batch_rows, encode_rows

Place = Literal["subject", "end"]
"""The subject's last token, or the last token of the prompt."""
NOISE = 3.0


@dataclass(frozen=True)
class Tracing:
    """Probabilities of the true answers: as the model is, with the noise, and with one state put back per layer."""

    clean: Float[Tensor, " fact"]
    noised: Float[Tensor, " fact"]
    restored: Float[Tensor, "layer fact"]
    """Row l: with the residual state that enters block l put back."""

    @property
    def curve(self) -> list[float]:
        """The mean over facts of `restored`, layer by layer."""
        return [float(value) for value in self.restored.mean(dim=1)]


def trace(
    model: EditableModel, facts: Sequence[Fact], place: Place, noise: float = NOISE, seed: int = 0
) -> Tracing:
    """P(first token of `target_true`) with the state entering each block in turn restored at one place of the prompt.

    The noise is Gaussian, `noise` standard deviations of the embeddings of all subjects' tokens; one draw per fact.

    Raises:
        FactError: there are no facts, or one has no `target_true`.
    """
    encoded = encode_rows(model, [_row(number, fact) for number, fact in enumerate(facts)])
    if not encoded:
        raise FactError("There are no facts to trace. Give at least one with a target_true.")
    batch = batch_rows(model, encoded)
    first = torch.tensor([row.text.predicted_at[0] for row in encoded], device=model.device)
    answers = torch.tensor([row.text.target[0] for row in encoded], device=model.device)
    places = batch.lookup if place == "subject" else first
    paths = [model.block_path(layer) for layer in range(model.layers)]
    states = model.values_at(batch.tokens, places, inputs_of=paths)

    drown = _noising(model, batch.tokens, _subject_tokens(encoded, batch.tokens), noise, seed)
    clean = _probabilities(model, batch.tokens, first, answers)
    with model.hooked({model.architecture.embeddings: drown}, "output"):
        noised = _probabilities(model, batch.tokens, first, answers)
        restored: list[Tensor] = []
        for path in paths:
            with model.hooked({path: _restoring(places, states[path])}, "input"):
                restored.append(_probabilities(model, batch.tokens, first, answers))
    return Tracing(clean, noised, torch.stack(restored))


def _row(number: int, fact: Fact) -> Row:
    if fact.target_true is None:
        raise FactError(
            f"Fact about {fact.subject!r} has no target_true, so there is no answer to trace. Add one."
        )
    return Row(number, "rewrite", fact.prompt, fact.subject, fact.target_true)


def _subject_tokens(encoded: Sequence[EncodedRow], tokens: Tokens) -> Bool[Tensor, "row seq"]:
    """Which tokens hold a character of their row's subject."""
    inside = torch.zeros_like(tokens.ids, dtype=torch.bool)
    for number, row in enumerate(encoded):
        start, end = row.row.subject_span
        for position, (left, right) in enumerate(row.text.spans):
            inside[number, position] = left < end and right > start
    return inside


def _noising(
    model: EditableModel, tokens: Tokens, subjects: Bool[Tensor, "row seq"], noise: float, seed: int
) -> Change:
    """Adds the same noise to the subjects' embeddings at every call."""
    weight = model.model.get_submodule(model.architecture.embeddings).get_parameter("weight").detach()
    scale = noise * weight[tokens.ids[subjects]].double().std()
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn((*subjects.shape, weight.shape[1]), generator=generator, dtype=torch.float64)
    added = (draw.to(weight.device) * scale * subjects.unsqueeze(-1)).to(weight.dtype)

    def add(hidden: Tensor) -> Tensor:
        return hidden + added

    return add


def _restoring(places: Int[Tensor, " row"], states: Float[Tensor, "row d"]) -> Change:
    """Puts each row's state back at its place."""

    def restore(hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        changed[torch.arange(len(places), device=hidden.device), places.to(hidden.device)] = states
        return changed

    return restore


def _probabilities(
    model: EditableModel, tokens: Tokens, positions: Int[Tensor, " row"], answers: Int[Tensor, " row"]
) -> Float[Tensor, " row"]:
    """The probability of each row's answer as the next token at its position."""
    rows = torch.arange(len(positions), device=positions.device)
    with torch.no_grad():
        logits = model.logits_at(tokens, rows, positions)
    return logits.double().softmax(dim=-1)[rows, answers.to(logits.device)]
