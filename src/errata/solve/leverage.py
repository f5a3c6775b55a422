"""How much of a residual a solve realizes: the leverage of keys, and the weight that makes it a given share.

    s_i = k_i^T E[k k^T]^-1 k_i,      a solve for fact i alone realizes s_i / (lambda + s_i) of its residual

A lambda therefore means something else in every model, and the share the same: lambda = median_i(s_i) (1 - rho) / rho
realizes the share rho for the median fact. docs/decisions/0016-settings-that-find-themselves.md.
"""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from errata.edits import Delta, Realized
from errata.models import Site


def leverages(keys: Float[Tensor, "fact d_in"], lower: Float[Tensor, "d_in d_in"]) -> Float[Tensor, " fact"]:
    """s of each key; `lower` is L, with L L^T = E[k k^T] and its ridge."""
    half = cast(Tensor, torch.linalg.solve_triangular(lower, keys.T.to(lower), upper=False))
    return half.square().sum(dim=0)


def weight_for(leverage: float, share: float) -> float:
    """The weight (lambda, or AlphaEdit's ridge) with which a key of this leverage realizes this share."""
    return leverage * (1 - share) / share


def share_of(leverage: float, weight: float) -> float:
    """The share of its residual that a key of this leverage realizes with this weight."""
    return leverage / (leverage + weight)


def realized(found: Sequence[float], weight: float | None, share: float | None) -> Realized | None:
    """What a weight amounts to for the median of these leverages, or which weight a share asks for.

    None without a leverage, or where the median is 0: then nothing can be said, and no share be realized.
    """
    middle = median(found) if found else 0.0
    if not middle > 0:
        return None
    if weight is None:
        assert share is not None
        weight = weight_for(middle, share)
    return Realized(weight, middle, share_of(middle, weight))


Solver = Callable[[Float[Tensor, "fact d_out"], Float[Tensor, "fact d_in"], Site], Delta]
"""From what is left to bring about at a site, the facts' keys there, and the site: its update."""


@runtime_checkable
class SumsSolver(Protocol):
    """A solver that needs only sums over the facts, so that their number does not matter."""

    def __call__(
        self, residual: Float[Tensor, "fact d_out"], keys: Float[Tensor, "fact d_in"], site: Site
    ) -> Delta:
        """As every solver."""
        ...

    def solve_sums(
        self, cross: Float[Tensor, "d_out d_in"], key_sum: Float[Tensor, "d_in d_in"], site: Site
    ) -> Delta:
        """The update from R K^T and K K^T, in float64; both may be overwritten."""
        ...


@runtime_checkable
class Gauge(Protocol):
    """Measures what the weight of a solver amounts to at one site; it sees every fact's own key, chunk by chunk."""

    def see(self, keys: Float[Tensor, "fact d_in"]) -> None:
        """Add the leverages of some facts."""
        ...

    def solver(self, rows: bool = True) -> tuple[Solver, Realized | None]:
        """The solver with its weight settled for the site, and what it amounts to; None where nobody can say.

        Without `rows` it is asked for sums only, and holds no factor that rows alone would need.

        Raises:
            CovarianceError: a share is asked for, and the second moments have no inverse.
        """
        ...


@runtime_checkable
class GaugedSolver(Protocol):
    """A solver whose weight can be measured or chosen by the leverage of the facts' own keys."""

    def gauge(self, site: Site) -> Gauge:
        """A new one for a site."""
        ...
