"""Whether a model can be entered at a block and behind tokens that are known: measured, as `bypass.py` does it.

Families that share keys and values between blocks, or keep another state of earlier tokens than keys and values, give
something else there, or fail. They are run whole.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from errata.models.bypass import bypassed, hold, hollow, layers_of
from errata.models.model import Change, EditableModel, Passes, StopForward, Tokens
from errata.models.probing import size_of

START = 4
"""Tokens that are kept in the check."""


def measure_passes(
    model: EditableModel,
    tokens: Tokens,
    leaving: Mapping[int, Tensor],
    inputs: Mapping[tuple[str, int], Tensor],
    logits: Float[Tensor, " vocab"],
    tolerance: float,
) -> Passes:
    """Which short cuts give what the whole pass gave: `leaving` each block, and `logits` after the last token."""

    def holds(run: Callable[[], Tensor], whole: Tensor = logits) -> bool:
        try:
            found = run().to(whole)
        except Exception:  # whatever the model's own code raises where it does not provide for this
            return False
        if found.shape != whole.shape:
            return False
        return size_of(found - whole) <= tolerance * size_of(whole)

    entry = model.layers // 2
    both = holds(lambda: _entered(model, tokens, leaving, entry, START))
    enters = both or holds(lambda: _entered(model, tokens, leaving, entry, 0))
    keeps = both or (not enters and holds(lambda: _entered(model, tokens, leaving, 0, START)))
    kinds = {model.architecture.parts(layer): layer for layer in reversed(model.editable_layers)}
    alone = all(
        holds(lambda layer=layer: _alone(model, tokens, layer), inputs["ffn", layer][:, -1])
        for layer in kinds.values()
    )
    aligns = both and model.takes_positions and holds(lambda: _aligned(model, tokens, leaving, entry))
    return Passes(enters, keeps, alone, aligns)


def _entered(
    model: EditableModel, tokens: Tokens, leaving: Mapping[int, Tensor], entry: int, start: int
) -> Float[Tensor, " vocab"]:
    """The logits after the last token, from a pass over the blocks from `entry` and the tokens from `start` on."""
    cache, tuples = None, model.block_output(Tokens(tokens.ids[:, :1], tokens.mask[:, :1]), 0)[1]
    if start:
        cache = _kept(model, Tokens(tokens.ids[:, :start], tokens.mask[:, :start]), entry)
    behind = Tokens(tokens.ids[:, start:], tokens.mask[:, start:])
    entering = leaving[entry - 1][:, start:] if entry else None
    with bypassed(model, entry, entering, tuples):
        last = torch.tensor([behind.ids.shape[1] - 1])
        return model.logits_at(behind, torch.tensor([0]), last, cache)[0]


def _aligned(
    model: EditableModel, tokens: Tokens, leaving: Mapping[int, Tensor], entry: int
) -> Float[Tensor, " vocab"]:
    """The same behind a cache that is one token wider than the row needs, as beside a row with more tokens before."""
    tuples = model.block_output(Tokens(tokens.ids[:, :1], tokens.mask[:, :1]), 0)[1]
    cache = _kept(model, Tokens(tokens.ids[:, :START], tokens.mask[:, :START]), entry)
    for layer in layers_of(cache):
        wider = [torch.cat([held[:, :, :1] + 1, held], dim=2) for held in (layer.keys, layer.values)]
        hold(layer, *wider)
    behind = Tokens(tokens.ids[:, START:], tokens.mask[:, START:], torch.tensor([START]))
    entering = leaving[entry - 1][:, START:] if entry else None
    with bypassed(model, entry, entering, tuples):
        last = torch.tensor([behind.ids.shape[1] - 1])
        return model.logits_at(behind, torch.tensor([0]), last, cache)[0]


def _kept(model: EditableModel, tokens: Tokens, entry: int) -> Cache:
    """The cache of the first tokens, as a resumed pass gets it."""
    cache = DynamicCache()
    model.block_outputs(tokens, [0], cache)
    layers = layers_of(cache)
    plain = {type(layer) for layer in layers} == {DynamicLayer}
    others = {name for layer in layers for name, value in vars(layer).items() if isinstance(value, Tensor)}
    if not plain or not others <= {"keys", "values"}:
        raise TypeError("a cache that cannot be cut by rows")
    for layer in layers[:entry]:
        hollow(layer, 1, START)
    return cache


def _alone(model: EditableModel, tokens: Tokens, layer: int) -> Float[Tensor, "row d_in"]:
    """The key of the last token, where the FFN is run at that token alone."""
    *inputs, output = model.architecture.ffn_paths(layer)
    seen: list[Tensor] = []

    def read(value: Tensor) -> None:
        seen.append(value[:, 0])
        raise StopForward

    def last(value: Tensor) -> Tensor:
        return value[:, -1:]

    changes: dict[str, Change] = {**dict.fromkeys(inputs, last), output: read}
    with model.hooked(changes, "input"):
        model.forward(tokens)
    return seen[0]
