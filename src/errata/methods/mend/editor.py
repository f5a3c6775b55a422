"""The networks of MEND: from the factors (u, d) of a gradient to the factors (u~, d~) of an edit.

One network for each shape of weight, shared by the maps of that shape. With z = (u, d), each half standardised,

    z_0 = ((u, d) - mean) / std,      z_k = z_k-1 + act(s_k * (A_k B_k z_k-1 + b_k) + o_k),      k = 1..n

A_k [d, rank] begins as zeros, B_k [rank, d] as N(0, 1); the scale s_k and the offset o_k belong to a single map and
begin as 1 and 0; act is max(0, .) but in the last step, where it is nothing. (Mitchell et al., ICLR 2022, section 3.1.)

    W <- W - alpha * sum_t d~_t u~_t^T                        with one learned alpha a map
    outputs = "gradient":      (u~, d~) = (u, d) + std * (z_n - z_0): at first exactly the fine-tuning gradient
    outputs = "standardised":  (u~, d~) = z_n: what the published program does; at first the standardised gradient

NOTE: mean and std are each map's own; the published program keeps them by shape, over maps of very different scale.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from errata.errors import EditorError
from errata.methods.mend.gradients import Factors, Update
from errata.models import EditableModel, Site

Outputs = Literal["gradient", "standardised"]
TINY = 1e-7
"""Keeps a number that never varies from being divided by zero (the published program's value)."""


def edited_sites(model: EditableModel, layers: Sequence[int]) -> list[Site]:
    """Every linear map of the FFN of these blocks.

    Raises:
        LayerOutOfRange: the model has no such block.
    """
    for layer in layers:
        model.check_layer(layer)
    return [model.site_at(path) for layer in layers for path in model.architecture.ffn_paths(layer)]


@dataclass(frozen=True)
class Layout:
    """What decides the shapes of an editor's tensors: the maps with their sizes, and the networks' own sizes."""

    sizes: Mapping[str, tuple[int, int]]
    """(d_in, d_out) by path."""
    rank: int
    hidden: int

    @classmethod
    def of(cls, model: EditableModel, layers: Sequence[int], rank: int, hidden: int) -> "Layout":
        """The layout of an editor for these blocks of the model."""
        sizes = {site.path: (site.d_in, site.d_out) for site in edited_sites(model, layers)}
        return cls(sizes, rank, hidden)

    @property
    def by_shape(self) -> dict[str, list[str]]:
        """The maps that share a network, by its name."""
        shapes: dict[str, list[str]] = {}
        for path, (d_in, d_out) in self.sizes.items():
            shapes.setdefault(f"{d_out}x{d_in}", []).append(path)
        return shapes


class Network(nn.Module):
    """The network of one shape, for `maps` maps, and the statistics of what it is given."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, maps: int, rank: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        rank, steps = min(rank, width), range(hidden + 1)
        self.left = _parameters(torch.zeros(width, rank) for _ in steps)
        self.right = _parameters(torch.randn(rank, width, generator=generator) for _ in steps)
        self.bias = _parameters(torch.zeros(width) for _ in steps)
        self.scale = _parameters(torch.ones(maps, width) for _ in steps)
        self.offset = _parameters(torch.zeros(maps, width) for _ in steps)
        self.register_buffer("mean", torch.zeros(maps, width))
        self.register_buffer("std", torch.ones(maps, width))

    def moved(self, start: Float[Tensor, "token width"], number: int) -> Float[Tensor, "token width"]:
        """z_n - z_0 for z_0 = `start`, of the map of that number."""
        total = torch.zeros_like(start)
        last = len(self.left) - 1
        for step in range(last + 1):
            inside = (start + total) @ self.right[step].T @ self.left[step].T + self.bias[step]
            inside = inside * self.scale[step][number] + self.offset[step][number]
            # clamp, not relu: its gradient at 0, where every unit begins, is 1.
            total = total + (inside if step == last else inside.clamp(min=0))
        return total


class Editor(nn.Module):
    """All networks of an editor, and the learned rates alpha."""

    def __init__(self, layout: Layout, outputs: Outputs, alpha: float, seed: int) -> None:
        """`alpha` is every map's at first; the seed decides B_k."""
        super().__init__()
        self.layout, self.outputs = layout, outputs
        self.networks = nn.ModuleDict()
        self._places: dict[str, tuple[str, int]] = {}
        generator = torch.Generator().manual_seed(seed)
        for shape, paths in layout.by_shape.items():
            width = sum(layout.sizes[paths[0]])
            self.networks[shape] = Network(width, len(paths), layout.rank, layout.hidden, generator)
            self._places |= {path: (shape, number) for number, path in enumerate(paths)}
        self.alpha = nn.Parameter(torch.full((len(layout.sizes),), alpha))

    def place(self, path: str) -> tuple[Network, int]:
        """The network of a map, and the map's number in it."""
        shape, number = self._places[path]
        return cast(Network, self.networks[shape]), number

    def measure(self, parts: Sequence[Mapping[str, Factors]]) -> None:
        """Set the mean and the standard deviation of every map's (u, d) to those of these factors.

        Raises:
            EditorError: a map has fewer than two tokens with a gradient.
        """
        for path in self.layout.sizes:
            network, number = self.place(path)
            halves = [torch.cat((part[path].inputs, part[path].gradients), dim=1) for part in parts]
            both = torch.cat(halves).double()
            if len(both) < 2:
                raise EditorError(
                    f"Too few facts have a gradient at {path} to measure how large it is. Give more."
                )
            network.mean[number] = both.mean(dim=0)
            network.std[number] = both.std(dim=0)

    def update(self, path: str, factors: Factors) -> Update:
        """The change of one map: a_t = -alpha d~_t and b_t = u~_t."""
        network, number = self.place(path)
        both = torch.cat((factors.inputs, factors.gradients), dim=1).to(self.alpha)
        mean, std = network.mean[number], network.std[number]
        start = (both - mean) / (std + TINY)
        moved = network.moved(start, number)
        out = both + std * moved if self.outputs == "gradient" else start + moved
        d_in = factors.inputs.shape[1]
        alpha = self.alpha[list(self.layout.sizes).index(path)]
        return Update(-alpha * out[:, d_in:], out[:, :d_in])

    def updates(self, factors: Mapping[str, Factors]) -> dict[str, Update]:
        """The change of every map, by path."""
        return {path: self.update(path, found) for path, found in factors.items()}


def _parameters(tensors: Iterable[Tensor]) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(tensor) for tensor in tensors])
