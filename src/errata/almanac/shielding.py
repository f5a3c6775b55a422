"""The attention mask that Almanac is trained with, and only trained with.

Behind a subject, no token sees the subject's earlier tokens, and its last token is seen from a middle block on. What
the model knows about a subject then has to be gathered at the subject's last token, in the lower blocks: where large
models have it (Meng et al. 2022, section 2), and where locate-then-edit methods write. At inference attention is
ordinary.
"""

from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import GPT2LMHeadModel

from errata.almanac.rows import SUBJECT, SUBJECT_LAST

SEEN_FROM = 6
"""The first block in which a subject's last token is seen from behind the subject."""


def visible(
    parts: Int[Tensor, "row seq"], shielded: Bool[Tensor, " row"]
) -> tuple[Bool[Tensor, "row 1 seq seq"], Bool[Tensor, "row 1 seq seq"]]:
    """Which token (axis 2) sees which (axis 3): in the blocks below `SEEN_FROM`, and in those from it on."""
    length = parts.shape[1]
    causal = torch.ones((length, length), dtype=torch.bool, device=parts.device).tril()
    last = (parts == SUBJECT_LAST).long()
    subjects_before = last.cumsum(1) - last
    behind = subjects_before[:, :, None] > subjects_before[:, None, :]
    behind = behind & shielded[:, None, None]
    earlier = (parts == SUBJECT)[:, None, :]
    whole = earlier | (parts == SUBJECT_LAST)[:, None, :]
    return (causal & ~(behind & whole))[:, None], (causal & ~(behind & earlier))[:, None]


def shielded_logits(
    model: GPT2LMHeadModel,
    ids: Int[Tensor, "row seq"],
    parts: Int[Tensor, "row seq"],
    shielded: Bool[Tensor, " row"],
) -> Float[Tensor, "row seq vocab"]:
    """The model's logits where the rows marked `shielded` are read through the mask, the others as always."""
    lower, upper = visible(parts, shielded)
    body = model.transformer
    positions = torch.arange(ids.shape[1], device=ids.device)
    hidden = cast(Tensor, body.wte(ids)) + cast(Tensor, body.wpe(positions))
    for index, block in enumerate(body.h):
        hidden = cast(Tensor, block(hidden, attention_mask=lower if index < SEEN_FROM else upper))
    return model.lm_head(body.ln_f(hidden))
