"""How surprised a model is, as it stands, by the targets of its facts behind every context."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from errata.facts import Fact
from errata.models import EditableModel
from errata.passes import EncodedRow, batch_rows, by_length, encode_rows, rewrite_rows
from errata.values.losses import Surprisal, by_context

ROWS_AT_ONCE = 384
LOGITS_AT_ONCE = 2**25
"""Bounds memory where the vocabulary is large."""


@dataclass(frozen=True)
class TargetMeasure:
    """What the model thinks of each fact's target."""

    nll: Float[Tensor, " fact"]
    """The mean over contexts of -(1/T) sum log P(t), in nats."""
    on_top: Bool[Tensor, " fact"]
    """Whether the target is the argmax at every target position of every context."""


def measure_targets(model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str]) -> TargetMeasure:
    """Run every prompt behind every context once, teacher-forced, with the weights as they stand."""
    rows_of: list[list[EncodedRow]] = [[] for _ in facts]
    for row in encode_rows(model, rewrite_rows(facts, contexts)):
        rows_of[row.row.fact].append(row)
    lengths = [max(len(row.text.ids) for row in rows) for rows in rows_of]
    tokens = max(len(row.text.target) for rows in rows_of for row in rows)
    at_once = min(ROWS_AT_ONCE, LOGITS_AT_ONCE // (tokens * len(model.tokenizer))) // len(contexts)
    nll = torch.zeros(len(facts), dtype=torch.float64)
    on_top = torch.zeros(len(facts), dtype=torch.bool)
    for group in by_length(lengths, max(1, at_once)):
        batch = batch_rows(model, [row for index in group for row in rows_of[index]])
        with torch.no_grad():
            logits = model.logits_at(batch.tokens, batch.predict_row, batch.predict_at)
        precise = torch.promote_types(logits.dtype, torch.float32)
        log_p = logits.to(device=batch.fact.device, dtype=precise).log_softmax(dim=-1)
        surprisal = Surprisal.of(log_p, batch)
        nll[group] = by_context(surprisal.mean, batch).mean(dim=1).to(nll)
        on_top[group] = (by_context(surprisal.missed, batch).sum(dim=1) == 0).cpu()
    return TargetMeasure(nll, on_top)
