"""How many facts go through the Optimization stage at once: as many as fit what memory is free, within limits."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from errata.models import EditableModel
from errata.passes.prompts import EncodedRow

MOST = 64
"""Facts at once: with some seven rows each, the matrix products of larger batches are no faster."""
SHARE = 0.5
"""Of the free memory: what is needed is estimated, and other programs want some."""
ENOUGH = {"cpu": 2**31}
"""Bytes that are never exceeded on a device, so that memory is the same wherever there is plenty of it."""
ENOUGH_ELSEWHERE = 2**35
LOGIT_COPIES = 4
"""The logits, their log softmax, and the gradients of both, in float32 or wider."""


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on the device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return psutil.virtual_memory().available


def bytes_of_fact(model: EditableModel, rows: Sequence[EncodedRow], layer: int) -> int:
    """About what one fact's rows hold while its value at block `layer` is optimised, in bytes.

    Kept for the backward pass, for every token from the lookup position on in every block above: the inputs of the
    norms, of the attention's four maps and of the FFN, whose wide side is kept before and after its activation. For
    every earlier token its keys and values. And the logits where they are read.
    """
    site = model.site("ffn", layer)
    held = Held(
        above=max(1, model.layers - layer),
        behind=sum(len(row.text.ids) - row.lookup for row in rows),
        before=sum(row.lookup for row in rows),
        reads=sum(len(row.text.target) + 1 for row in rows),
    )
    return bytes_held(held, site.d_out, site.d_in, len(model.tokenizer), site.weight.element_size())


@dataclass(frozen=True)
class Held:
    """Of one fact: blocks above the value, tokens from the lookup position on and before it, places that are read."""

    above: int
    behind: int
    before: int
    reads: int


def bytes_held(held: Held, d_model: int, d_in: int, vocabulary: int, size: int) -> int:
    """The same from a model's shape alone; `size` is that of a weight in bytes."""
    activations = held.behind * held.above * (12 * d_model + 4 * d_in) * size
    cache = held.before * held.above * 2 * d_model * size
    return activations + cache + LOGIT_COPIES * held.reads * vocabulary * max(4, size)


def facts_at_once(
    model: EditableModel,
    rows_of: Sequence[Sequence[EncodedRow]],
    layer: int,
    workers: int = 1,
    processes: int = 1,
) -> int:
    """How many a batch holds where `workers` batches run side by side in each of `processes` processes.

    What fits is a power of two, so that a little more or less of free memory gives the same batches, and so the same
    bytes; where several batches run side by side, none has more facts than its share."""
    if not rows_of:
        return 1
    largest = max(bytes_of_fact(model, rows, layer) for rows in rows_of)
    device = model.device
    budget = min(SHARE * free_memory(device), ENOUGH.get(device.type, ENOUGH_ELSEWHERE))
    sharing = workers if device.type == "cuda" else workers * processes
    fitting = max(1, int(budget / sharing / largest))
    share = MOST if workers == 1 else -(-len(rows_of) // workers)
    return min(MOST, 1 << (fitting.bit_length() - 1), share)
