"""How surprised a model is by plain texts."""

import math
from collections.abc import Sequence

import torch

from errata.model import EditableModel
from errata.prompts import by_length, encode_text, pad

LOGITS_AT_ONCE = 2**25


def text_perplexity(model: EditableModel, texts: Sequence[str]) -> float:
    """The mean over texts of exp(-(1/N) sum log P), N the text's number of tokens (ME-PPL-50's count, paper 2).

    Texts are cut to the model's context. NaN if the model's output is not a number.

    Raises:
        ValueError: no text has two tokens or more.
    """
    ids = [encode_text(model, text, None).ids for text in texts]
    ids = [row for row in ids if len(row) > 1]
    if not ids:
        raise ValueError(
            f"None of the {len(texts)} texts has two tokens or more, so there is no perplexity. Give longer ones."
        )
    total = 0.0
    longest = max(len(row) for row in ids)
    at_once = max(1, LOGITS_AT_ONCE // (longest * len(model.tokenizer)))
    for group in by_length([len(row) for row in ids], at_once):
        tokens = pad([ids[index] for index in group], model)
        rows, positions = tokens.mask[:, 1:].nonzero().unbind(dim=1)
        with torch.no_grad():
            logits = model.logits_at(tokens, rows, positions)
        precise = torch.promote_types(logits.dtype, torch.float32)
        log_p = logits.to(device=tokens.ids.device, dtype=precise).log_softmax(dim=-1)
        said = log_p.gather(1, tokens.ids[rows, positions + 1][:, None])[:, 0].double()
        sums = torch.zeros(len(group), dtype=torch.float64, device=said.device).index_add(0, rows, said)
        counts = tokens.mask.sum(dim=1).to(sums)
        total += float((-sums / counts).clamp(max=math.log(1e300)).exp().sum())
    return total / len(ids)
