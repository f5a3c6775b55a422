"""What an editor is trained for, from one edit in training: that it holds, and that it is local.

    NLL = mean over paraphrases of -(1/T) sum_t log P(t | x ; edited)
    KL  = mean over other questions of KL(P ; unedited || P ; edited), each the mean over its answer's tokens

    loss = c_edit * NLL + KL                              (Mitchell et al., ICLR 2022, section 3.2)

Gradients reach the editor through the edited weights; the model itself is frozen.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from errata.methods.mend.editor import Editor, edited_sites
from errata.methods.mend.examples import Draw
from errata.methods.mend.gradients import Factors, Readings, Update, capture, updated
from errata.models import EditableModel
from errata.passes import EncodedText, Part, Resumed
from errata.values import divergence


@dataclass(frozen=True)
class Losses:
    """The two terms, without their weights."""

    nll: Float[Tensor, ""]
    kl: Float[Tensor, ""]

    def total(self, edit_weight: float) -> Float[Tensor, ""]:
        """c_edit * NLL + KL."""
        return edit_weight * self.nll + self.kl


@dataclass(frozen=True)
class Objective:
    """The losses of edits of one model by one editor."""

    model: EditableModel
    editor: Editor
    layers: tuple[int, ...]
    tuples: bool
    """Whether the family's blocks hand on a tuple."""

    @classmethod
    def of(cls, model: EditableModel, editor: Editor, layers: tuple[int, ...]) -> "Objective":
        """The objective for an editor of these blocks."""
        probe = Readings.of(model, [EncodedText((0,), (), ())])
        return cls(model, editor, layers, model.block_output(probe.tokens, layers[0])[1])

    def factors(self, texts: tuple[EncodedText, ...]) -> dict[str, Factors]:
        """The factors of the summed gradient of the facts that the texts state."""
        return capture(self.model, edited_sites(self.model, self.layers), Readings.of(self.model, texts))[1]

    def losses(self, drawn: Draw) -> Losses:
        """The losses of the edit that the drawn facts make; without questions to be kept KL is 0."""
        updates = self.editor.updates(self.factors(drawn.facts))
        written = Readings.of(self.model, drawn.written)
        with updated(self.model, updates):
            nll = written.surprisal(written.log_probabilities(self.model)).mean()
        return Losses(nll, self._divergence(drawn.kept, updates) if drawn.kept else torch.zeros_like(nll))

    def _divergence(self, texts: tuple[EncodedText, ...], updates: dict[str, Update]) -> Float[Tensor, ""]:
        """The mean KL; the blocks below the first edited one run once for both models."""
        kept = Readings.of(self.model, texts)
        entering: list[Tensor] = []
        first = min(self.layers)

        def keep(hidden: Tensor) -> None:
            entering.append(hidden)

        with torch.no_grad(), self.model.hooked({self.model.block_path(first): keep}, "input"):
            reference = kept.log_probabilities(self.model)
        rows = torch.arange(kept.rows, device=kept.row.device)
        part = Part(rows, torch.zeros_like(rows), kept.tokens, entering[0] if first else None, None)
        with updated(self.model, updates):
            resumed = Resumed(self.model, first, self.tuples, (part,))
            logits = resumed.logits_at(kept.row, kept.at, lambda _: {})
        edited = logits.to(reference.dtype).log_softmax(dim=-1)
        return kept.row_means(divergence(reference, edited)).mean()
