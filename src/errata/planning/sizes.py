"""How much memory an edit of a model takes, computed from the model's shape: no weight is loaded. docs/big-models.md.

    whole = the running program + weights + the largest of what the stages hold on top of them
    collecting = L (8 + 8 + 4) d_in^2 on a CPU: sums, their copy while they are saved, and a batch's own (elsewhere L 4
                 d_in^2, the copy being in main memory); L is the number of edited layers, all measured at once
    optimising = what one batch of facts keeps for the way back (`memory.py`)
    spreading  = 24 d_in^2: E[k k^T], its copy and its Cholesky factor in float64, one layer at a time
                 + L d_out d_in weights to put back + what the facts have: streams, keys, values, updates

All in bytes.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from errata.models import Site, architecture_of
from errata.passes import BUDGET, ENOUGH, ENOUGH_ELSEWHERE, MOST, TOKENS_IN_CACHE, Held, bytes_held
from errata.settings import DEFAULT_METHOD, build, load_presets
from errata.solve import CHUNK, ELEMENTS, THIN

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROGRAM = 500 * 10**6
"""Python with PyTorch and transformers, before any model: measured on Linux, CPU build."""
CONTEXTS, ROW_TOKENS, BEHIND = 6, 24, 8
"""Of a fact: texts before its prompt, tokens of a row, and how many of them from the subject's last one on."""
READS = 3
"""Places of a row at which the vocabulary is read."""
WINDOW_TOKENS = 8192
"""Tokens that run together while second moments are collected, where they are not cut to fit a cache."""


@dataclass(frozen=True)
class Shape:
    """What memory depends on."""

    name: str
    parameters: int
    blocks: int
    layers: tuple[int, ...]
    """Those that the method writes with its settings for this model, ascending."""
    d_model: int
    d_in: int
    """Of the down projection: the size of a key."""
    vocabulary: int


@dataclass(frozen=True)
class _Layers:
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Needs:
    """Bytes by what they are for."""

    weights: int
    moments_file: int
    """Second moments of all edited layers, as they lie on disk."""
    collecting: int
    optimising: int
    spreading: int

    @property
    def whole(self) -> int:
        """The most that the process takes at any time, without what loading itself may take on top."""
        return PROGRAM + self.weights + max(self.collecting, self.optimising, self.spreading)


def known_shapes() -> list[Shape]:
    """The models of `shapes.toml`."""
    rows: Mapping[str, Mapping[str, object]] = tomllib.loads(
        (Path(__file__).parent / "shapes.toml").read_text(encoding="utf-8")
    )
    return [shape_of(name, config_of(values)) for name, values in rows.items()]


def config_of(values: Mapping[str, object]) -> PretrainedConfig:
    """A configuration from its values, `model_type` among them."""
    own = {name: value for name, value in values.items() if name != "model_type"}
    return AutoConfig.for_model(str(values["model_type"]), **own)


def shape_of(name: str, config: PretrainedConfig) -> Shape:
    """The shape of a model with this configuration: built without memory for its weights, and counted.

    Its layers are those of the default method.

    Raises:
        UnknownArchitecture, UnsupportedArchitecture: the family cannot be edited.
    """
    with torch.device("meta"):
        model = cast(PreTrainedModel, AutoModelForCausalLM.from_config(config))
    architecture = architecture_of(model, name)
    blocks = len(cast(nn.ModuleList, model.get_submodule(architecture.blocks)))
    editable = [layer for layer in range(blocks) if architecture.path_if_any("ffn", layer) is not None]
    path = architecture.site_path("ffn", editable[0])
    site = Site("ffn", editable[0], path, model.get_submodule(path))
    presets = load_presets(DEFAULT_METHOD).among(editable)
    values = presets.for_model(name, blocks).values
    written = {
        layer
        for setting in presets.layer_rules
        for layer in build(_Layers, {"layers": values[setting]}).layers
    }
    return Shape(
        name=name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        blocks=blocks,
        layers=tuple(sorted(written)),
        d_model=site.d_out,
        d_in=site.d_in,
        vocabulary=int(config.get_text_config(decoder=True).vocab_size),
    )


def needs_of(shape: Shape, dtype: torch.dtype, facts: int, device: str = "cpu") -> Needs:
    """What an edit of `facts` facts takes, the model being in `dtype` on one device."""
    size = dtype.itemsize
    return Needs(
        weights=shape.parameters * size,
        moments_file=len(shape.layers) * shape.d_in**2 * 4,
        collecting=_collecting(shape, size, device),
        optimising=_optimising(shape, size, facts, device),
        spreading=_spreading(shape, size, facts),
    )


def _collecting(shape: Shape, size: int, device: str) -> int:
    """Sums of all layers, and a batch on its way through a block; or at the end one layer made symmetric."""
    square = shape.d_in**2
    tokens = TOKENS_IN_CACHE.get(device, WINDOW_TOKENS)
    batch = tokens * (6 * shape.d_model + 3 * shape.d_in) * max(4, size)
    sums = len(shape.layers) * square * (8 if device == "cpu" else 4)
    products = len(shape.layers) * square * 4 if device == "cpu" else 0
    saving = sums if device == "cpu" else 0
    return sums + max(products + max(batch, saving), 3 * square * 8)


def _optimising(shape: Shape, size: int, facts: int, device: str) -> int:
    """One batch of facts: as many as `memory.facts_at_once` takes where memory is free."""
    rows = CONTEXTS + 1
    held = Held(
        above=max(1, shape.blocks - shape.layers[-1]),
        behind=rows * BEHIND,
        before=rows * (ROW_TOKENS - BEHIND),
        reads=rows * READS,
    )
    one = bytes_held(held, shape.d_model, shape.d_in, shape.vocabulary, size)
    fitting = max(1, ENOUGH.get(device, ENOUGH_ELSEWHERE) // one)
    at_once = min(MOST, 1 << (fitting.bit_length() - 1), max(1, facts))
    adam = 2 * 4 * shape.d_model * max(4, size)  # of two places at most: value, gradient and two moments
    return at_once * (one + adam)


def _spreading(shape: Shape, size: int, facts: int) -> int:
    """The solve of one layer, and what is kept from layer to layer."""
    layers = len(shape.layers)
    square, matrix = shape.d_in**2, shape.d_in * shape.d_model
    chunk = min(facts, CHUNK, max(1, ELEMENTS // shape.d_in))
    streams = min(BUDGET, facts * CONTEXTS * ROW_TOKENS * shape.d_model * size)
    keys = chunk * (shape.d_in + shape.d_model) * 8
    if facts > THIN * min(shape.d_in, shape.d_model):
        change, solve = matrix * 4, 3 * square * 8 + 2 * matrix * 8
    else:
        change = facts * (shape.d_in + shape.d_model) * 4
        solve = 3 * square * 8 + 3 * facts * shape.d_in * 8
    return solve + layers * (matrix * size + change) + streams + keys
