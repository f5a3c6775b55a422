"""Enter a model at a block, with a residual stream that is known; and what that takes of the model's cache.

The blocks below hand on what they are given, at no cost: all else is the model's own code. The cache of such a pass
must look as if the lower blocks had run too, as a model reads the number of earlier tokens off its first layer.
"""

import copy
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from errata.models.model import EditableModel


@runtime_checkable
class CacheLayer(Protocol):
    """What is asked of the cache of one block: every kind that keeps keys and values [row, head, token, d] has it."""

    keys: Tensor
    values: Tensor
    is_initialized: bool


@contextmanager
def bypassed(
    model: EditableModel, entry: int, entering: Float[Tensor, "row seq d_model"] | None, tuples: bool
) -> Generator[None]:
    """For a while, each block below `entry` hands on `entering`; `tuples`: whether inside a tuple."""

    def hand_on(*_: object, **__: object) -> object:
        return (entering,) if tuples else entering

    blocks = [model.model.get_submodule(model.block_path(layer)) for layer in range(entry)]
    before = [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = hand_on
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            if forward is None:
                block.__dict__.pop("forward", None)
            else:
                block.forward = forward


def layers_of(cache: Cache) -> list[CacheLayer]:
    """The cache of each block."""
    return cast("list[CacheLayer]", cache.layers)


def fresh(cache: Cache) -> Cache:
    """A cache that holds the same tensors and can grow by itself."""
    again = copy.copy(cache)
    again.layers = [copy.copy(layer) for layer in cache.layers]
    return again


def cache_rows(cache: Cache, chosen: Int[Tensor, " chosen"], entry: int = 0) -> Cache:
    """The cache of the chosen rows, each any number of times; blocks below `entry` hold nothing but a shape."""
    part = fresh(cache)
    layers = layers_of(part)
    for layer in layers[entry:]:
        layer.keys = layer.keys[chosen.to(layer.keys.device)]
        layer.values = layer.values[chosen.to(layer.values.device)]
    for layer in layers[:entry]:
        _hollow(layer, layers[entry].keys.shape, layers[entry].values.shape, layers[entry].keys)
    return part


def hold(layer: CacheLayer, keys: Tensor, values: Tensor) -> None:
    """Put keys and values [row, head, token, d] in the place of what the layer holds."""
    layer.keys, layer.values, layer.is_initialized = keys, values, True


def hollow(layer: CacheLayer, rows: int, tokens: int) -> None:
    """Of a block that is never run again: a shape alone, which tells how many tokens came before."""
    keys, values = (
        held.new_zeros(1).expand(rows, held.shape[1], tokens, held.shape[3])
        for held in (layer.keys, layer.values)
    )
    hold(layer, keys, values)


def _hollow(layer: CacheLayer, keys: torch.Size, values: torch.Size, like: Tensor) -> None:
    hold(layer, like.new_zeros(1).expand(keys), like.new_zeros(1).expand(values))
