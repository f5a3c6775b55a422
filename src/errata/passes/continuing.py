"""One more token: a pass over what is new, the keys and values of earlier tokens kept."""

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from errata.models import EditableModel


def next_logits(
    model: EditableModel, fed: Int[Tensor, "row seq"], width: int, cache: Cache | None
) -> tuple[Float[Tensor, "row vocab"], Cache]:
    """The logits after the last token fed (only there the head is read); `width` counts the cached tokens too."""

    def last(hidden: Tensor) -> Tensor:
        return hidden[:, -1:]

    mask = torch.ones(len(fed), width, dtype=torch.long, device=fed.device)
    with torch.no_grad(), model.hooked({model.architecture.head: last}, "input"):
        out = model.model(input_ids=fed, attention_mask=mask, past_key_values=cache, use_cache=True)
    return cast(Tensor, out.logits)[:, -1], cast(Cache, out.past_key_values)
