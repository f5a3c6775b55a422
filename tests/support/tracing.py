"""Causal tracing in whole passes of the model (Meng et al. 2022, section 2), to compare `restore_everywhere` with.

The embeddings of the subject are drowned in noise, so the model no longer knows whom it is asked about. Then a single
hidden state is put back to what it was without noise. Where that brings the answer back, the fact passes through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from errata.facts.fact import Fact
from errata.models.model import Change, EditableModel, Tokens
from errata.passes.prompts import EncodedRow, Row, batch_rows, encode_rows

Place = Literal["subject", "end"]
"""The subject's last token, or the last token of the prompt."""
NOISE = 3.0


@dataclass(frozen=True)
class Tracing:
    """Probabilities of the true answers: as the model is, with the noise, and with one state put back per layer."""

    draw: Float[Tensor, "fact seq d_model"]
    """The noise; zero but at the subject's tokens."""
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
    """
    encoded = encode_rows(
        model,
        [Row(i, "rewrite", fact.prompt, fact.subject, fact.target_true) for i, fact in enumerate(facts)],
    )
    batch = batch_rows(model, encoded)
    first = torch.tensor([row.text.predicted_at[0] for row in encoded], device=model.device)
    answers = torch.tensor([row.text.target[0] for row in encoded], device=model.device)
    places = batch.lookup if place == "subject" else first
    paths = [model.block_path(layer) for layer in range(model.layers)]
    states = model.values_at(batch.tokens, places, inputs_of=paths)

    draw = _draw(model, batch.tokens, _subject_tokens(encoded, batch.tokens), noise, seed)
    clean = _probabilities(model, batch.tokens, first, answers)
    with model.hooked({model.architecture.embeddings: lambda hidden: hidden + draw}, "output"):
        noised = _probabilities(model, batch.tokens, first, answers)
        restored: list[Tensor] = []
        for path in paths:
            with model.hooked({path: _restoring(places, states[path])}, "input"):
                restored.append(_probabilities(model, batch.tokens, first, answers))
    return Tracing(draw, clean, noised, torch.stack(restored))


def _subject_tokens(encoded: Sequence[EncodedRow], tokens: Tokens) -> Bool[Tensor, "row seq"]:
    """Which tokens hold a character of their row's subject."""
    inside = torch.zeros_like(tokens.ids, dtype=torch.bool)
    for number, row in enumerate(encoded):
        start, end = row.row.subject_span
        for position, (left, right) in enumerate(row.text.spans):
            inside[number, position] = left < end and right > start
    return inside


def _draw(
    model: EditableModel, tokens: Tokens, subjects: Bool[Tensor, "row seq"], noise: float, seed: int
) -> Float[Tensor, "row seq d_model"]:
    """Noise for the subjects' embeddings."""
    weight = model.model.get_submodule(model.architecture.embeddings).get_parameter("weight").detach()
    scale = noise * weight[tokens.ids[subjects]].double().std()
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn((*subjects.shape, weight.shape[1]), generator=generator, dtype=torch.float64)
    return (draw.to(weight.device) * scale * subjects.unsqueeze(-1)).to(weight.dtype)


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
