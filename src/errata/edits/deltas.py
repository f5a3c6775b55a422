"""The change of one weight matrix, and the one place that adds it to the weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from errata.errors import EditError, WrongModel
from errata.models import EditableModel, Site


@dataclass(frozen=True)
class Realized:
    """What the weight of a solve amounts to: the share of its change that the median fact gets from one solve."""

    weight: float
    """lambda (`solve.covariance_weight`), or AlphaEdit's ridge."""
    leverage: float
    """The median over the facts of k^T E[k k^T]^-1 k; for AlphaEdit of k^T P k."""
    share: float
    """leverage / (leverage + weight)."""


@dataclass(frozen=True, eq=False)
class Delta:
    """The change of one weight, [d_out, d_in]: two thin factors, or one dense matrix where thin would not be thin."""

    left: Float[Tensor, "d_out rank"] | None
    right: Float[Tensor, "rank d_in"] | None
    dense: Float[Tensor, "d_out d_in"] | None = None

    @classmethod
    def from_factors(
        cls, left: Float[Tensor, "d_out rank"], right: Float[Tensor, "rank d_in"], dtype: torch.dtype
    ) -> "Delta":
        """Keep the factors, or their product when the rank exceeds half of the smaller side."""
        if left.shape[1] > min(left.shape[0], right.shape[1]) / 2:
            return cls(None, None, (left @ right).to(dtype).contiguous())
        return cls(left.to(dtype).contiguous(), right.to(dtype).contiguous())

    @property
    def matrix(self) -> Float[Tensor, "d_out d_in"]:
        """The change as one matrix."""
        if self.dense is not None:
            return self.dense
        left, right = self.tensors["left"], self.tensors["right"]
        return left @ right

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is stored: `left` and `right`, or `dense`."""
        parts = {"left": self.left, "right": self.right, "dense": self.dense}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def rank(self) -> int:
        """At most this many directions are changed."""
        return min(self.dense.shape) if self.dense is not None else self.tensors["left"].shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        if self.dense is not None:
            return self.dense.shape[0], self.dense.shape[1]
        return self.tensors["left"].shape[0], self.tensors["right"].shape[1]


def sum_deltas(deltas: Sequence[Delta]) -> Delta:
    """Several changes of one weight as one: their factors side by side, or one dense matrix where thin is not thin."""
    first = deltas[0]
    if len(deltas) == 1:
        return first
    rank = sum(delta.rank for delta in deltas)
    if any(delta.dense is not None for delta in deltas) or rank > min(first.shape) / 2:
        total = torch.zeros(first.shape, dtype=torch.float64, device=first.matrix.device)
        for delta in deltas:
            total += delta.matrix
        return Delta(None, None, total.to(first.matrix.dtype))
    left = torch.cat([delta.tensors["left"] for delta in deltas], dim=1)
    return Delta(left, torch.cat([delta.tensors["right"] for delta in deltas], dim=0))


def check_finite(deltas: Mapping[str, Delta]) -> None:
    """Raise where changes must not reach a file.

    Raises:
        EditError: a number of one is infinite or not a number.
    """
    for path, delta in deltas.items():
        if not all(bool(part.isfinite().all()) for part in delta.tensors.values()):
            raise EditError(
                f"The change of {path} is infinite or not a number; nothing is written. In half precision numbers may "
                "overflow: make the edit with --dtype float32."
            )


def sites_of(model: EditableModel, deltas: Mapping[str, Delta]) -> dict[str, Site]:
    """The weights that the changes are for.

    Raises:
        WrongModel: the model lacks one, or has it in another shape.
    """
    sites: dict[str, Site] = {}
    for path, delta in deltas.items():
        try:
            sites[path] = model.site_at(path)
        except KeyError:
            raise WrongModel(
                f"The edit changes {path!r}, which {model.name} does not have. It was made for another model."
            ) from None
        shape = tuple(sites[path].matrix.shape)
        if shape != delta.shape:
            raise WrongModel(f"The edit changes {path} as {delta.shape}, but in {model.name} it is {shape}.")
    return sites


def write_deltas(model: EditableModel, deltas: Mapping[str, Delta]) -> None:
    """W <- W + Delta for each, added in the wider of the two precisions and rounded to the weight's dtype once.

    Inside a level of `model.ledger`, which can take them back.
    """
    for path, delta in deltas.items():
        site = model.site_at(path).held()
        with torch.no_grad():
            change = delta.matrix.to(site.weight.device)
            precise = torch.promote_types(site.weight.dtype, change.dtype)
            total = (site.matrix.to(precise) + change).to(site.weight.dtype)
        model.ledger.write(site, site.as_stored(total))
