"""One weight of a model that can be read and written: `Site`."""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from errata.models.offload import device_of, hold

NO_FLOAT64 = ("mps", "meta")
"""Devices that cannot hold float64, and the one of weights that are not in memory."""


@dataclass(frozen=True)
class Site:
    """One weight that can be read and written: as a rule the output map of the FFN or of the attention of a block."""

    kind: str
    layer: int
    path: str
    """Of the module for a linear map; for any other parameter, its own name."""
    module: nn.Module
    parameter: str = "weight"

    @property
    def weight(self) -> nn.Parameter:
        """The parameter as it is stored, in the module's own orientation."""
        return cast(nn.Parameter, getattr(self.module, self.parameter))

    @property
    def name(self) -> str:
        """Of the parameter, as `named_parameters` of the whole model gives it."""
        inside = self.path.rpartition(".")[2] == self.parameter
        return self.path if inside else f"{self.path}.{self.parameter}"

    @property
    def device(self) -> torch.device:
        """Where the map runs; with parts of the model offloaded, its weight need not lie there."""
        return device_of(self.module, self.parameter)

    def held(self) -> "Site":
        """The site with its weight in memory on its device from now on, to be changed in place.

        Raises:
            ModelError: the weight is nowhere.
        """
        hold(self.module)
        return self

    @property
    def transposed(self) -> bool:
        """Whether the weight is stored [d_in, d_out]: told by the module's type, never by a shape."""
        return isinstance(self.module, Conv1D) and self.parameter == "weight"

    @property
    def matrix(self) -> Float[Tensor, "d_out d_in"]:
        """The weight as [d_out, d_in], whatever the storage order (a view, not a copy); a vector as one column."""
        return self.as_matrix(self.weight.detach())

    def as_matrix(self, values: Tensor) -> Float[Tensor, "d_out d_in"]:
        """Values in the weight's own orientation as `matrix` shows the weight (a view)."""
        if values.ndim == 1:
            return values.unsqueeze(1)
        return values.T if self.transposed else values

    def as_stored(self, matrix: Float[Tensor, "d_out d_in"]) -> Tensor:
        """A matrix [d_out, d_in] in the weight's own orientation (a view): the inverse of `as_matrix`."""
        if self.weight.ndim == 1:
            return matrix.squeeze(1)
        return matrix.T if self.transposed else matrix

    @property
    def d_out(self) -> int:
        """The size of the map's output."""
        return self.matrix.shape[0]

    @property
    def d_in(self) -> int:
        """The size of the map's input, the key."""
        return self.matrix.shape[1]


def solving_device(device: torch.device) -> torch.device:
    """Where sums over keys are kept and solved with in float64: the weight's own device, if it knows float64."""
    return torch.device("cpu") if device.type in NO_FLOAT64 else device
