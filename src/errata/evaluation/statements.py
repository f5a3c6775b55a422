"""Other statements about the subject: whether the model goes on with the same token as before the edit.

The true answer to "{} was born in" need not be known: what is compared is the likeliest next token, before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from errata.evaluation.probabilities import LOGITS_AT_ONCE, TOKENS_AT_ONCE, encode_at
from errata.models import EditableModel
from errata.passes import like_lengths, pad
from errata.results import NO_TOKEN
from errata.runtime import Progress, silent


def likeliest_next(
    model: EditableModel, prompts: Sequence[str], on_progress: Progress = silent
) -> tuple[int, ...]:
    """The likeliest token after each prompt, of the model as it stands; `NO_TOKEN` where the output is not a number.

    Raises:
        PromptTooLong: a prompt does not fit the model; the message quotes it.
    """
    rows = [encode_at(model, prompt, None, f"Statement {prompt!r}").ids for prompt in prompts]
    most = min(TOKENS_AT_ONCE, max(1, LOGITS_AT_ONCE // len(model.tokenizer)))
    found = [NO_TOKEN] * len(rows)
    done = 0
    for group in like_lengths([len(row) for row in rows], most, model.device):
        ids = [rows[index] for index in group]
        ends = torch.tensor([len(row) - 1 for row in ids])
        with torch.no_grad():
            logits = model.logits_at(pad(ids, model), torch.arange(len(ids)), ends)
        best = torch.where(logits.isnan().any(dim=-1), NO_TOKEN, logits.argmax(dim=-1))
        for index, token in zip(group, cast("list[int]", best.tolist()), strict=True):
            found[index] = token
        done += len(group)
        on_progress("statements", done, len(rows))
    return tuple(found)


def share_unchanged(before: Sequence[int], after: Sequence[int]) -> float | None:
    """The share of the prompts with the same likeliest next token; None where there is no prompt.

    What is not a number is the same as nothing.
    """
    pairs = list(zip(before, after, strict=True))
    return sum(one == other != NO_TOKEN for one, other in pairs) / len(pairs) if pairs else None
