"""The papers' solver: Delta = R K^T (lambda E[k k^T] + K K^T)^-1, from rows or from sums, in float64."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from errata.edits import Delta, Realized
from errata.errors import CovarianceError
from errata.models import Site
from errata.moments import ridged
from errata.solve.leverage import Solver, leverages, realized

Moment = Callable[[Site], Float[Tensor, "d_in d_in"]]
LowerFactor = Callable[[Site, float], Tensor | None]
"""L, with L L^T = E[k k^T] of a site and a ridge, in float64; None where it is not to be had cheaply."""
THIN = 0.5
"""Updates of a rank of up to so much of the smaller side are kept as factors."""


def no_factor(site: Site, ridge: float) -> None:
    """No factor is kept."""


@dataclass(frozen=True)
class LeastSquares:
    """Delta = R K^T (lambda E[k k^T] + K_p K_p^T + K K^T)^-1, from rows or from sums."""

    covariance: Moment
    weight: float | None
    """lambda; None: chosen at each site so that the median fact realizes `share`."""
    ridge: float
    lower: LowerFactor = no_factor
    share: float | None = None
    earlier: Moment | None = None
    """K_p K_p^T of a site: the keys of earlier edits. The ridge and the leverages are of E[k k^T] alone."""

    def __call__(
        self, residual: Float[Tensor, "fact d_out"], keys: Float[Tensor, "fact d_in"], site: Site
    ) -> Delta:
        """The update from rows; from the kept factor where there is one and the rows are few."""
        if self.weight is None:
            gauge = self.gauge(site)
            gauge.see(keys)
            return gauge.solver()[0](residual, keys, site)
        if self.earlier is None and len(keys) <= THIN * min(site.d_out, site.d_in):
            lower = self.lower(site, self.ridge)
            if lower is not None:
                return solve_few(residual, keys, lower, self.weight, site)
        return solve(residual, keys, self._moment(site, self.weight), self.weight, site)

    def solve_sums(
        self, cross: Float[Tensor, "d_out d_in"], key_sum: Float[Tensor, "d_in d_in"], site: Site
    ) -> Delta:
        """The update from R K^T and K K^T; the weight must be settled."""
        assert self.weight is not None
        matrix = key_sum.add_(self._moment(site, self.weight), alpha=self.weight)
        factor = _factor(matrix, self.weight, site)
        dense = torch.cholesky_solve(cross.T, factor).T
        return Delta(None, None, dense.to(_precise(site)).contiguous())

    def gauge(self, site: Site) -> "LeastSquaresGauge":
        """Measures lambda, or chooses it, for the facts of one site."""
        return LeastSquaresGauge(self, site, self.lower(site, self.ridge))

    def _moment(self, site: Site, weight: float) -> Float[Tensor, "d_in d_in"]:
        plain = ridged(self.covariance(site), self.ridge)
        return plain if self.earlier is None else plain + self.earlier(site).to(plain) / weight


@dataclass
class LeastSquaresGauge:
    """lambda at one site, by the factor of its second moments."""

    of: LeastSquares
    site: Site
    kept: Tensor | None
    """The factor that the solve may use too."""
    found: list[float] = field(default_factory=list[float])
    _own: Tensor | None = None
    """One that was computed for the leverages alone."""

    def see(self, keys: Float[Tensor, "fact d_in"]) -> None:
        """Add the leverages of some facts."""
        lower = self.kept if self.kept is not None else self._computed()
        if lower is not None:
            self.found += cast("list[float]", leverages(keys, lower).tolist())

    def solver(self, rows: bool = True) -> tuple[Solver, Realized | None]:
        """The least squares with lambda settled; without `rows`, for sums only and without the factor.

        Raises:
            CovarianceError: a share is asked for, and the second moments have no inverse.
        """
        self._own = None
        measured = realized(self.found, self.of.weight, self.of.share)
        weight = self.of.weight if measured is None else measured.weight
        if weight is None:
            raise CovarianceError(
                f"solve.realised_share cannot be brought about at {self.site.path}: the second moments are not "
                "positive definite, or the facts' keys are 0. They were measured on too few tokens: collect them "
                "from more text (`errata covariance collect --samples`), or set solve.covariance_weight."
            )
        kept = self.kept if rows else None
        return replace(self.of, weight=weight, share=None, lower=_always(kept)), measured

    def _computed(self) -> Tensor | None:
        if self._own is None:
            moment = ridged(self.of.covariance(self.site), self.of.ridge)
            factor, failed = cast("tuple[Tensor, Tensor]", torch.linalg.cholesky_ex(moment))
            self._own = factor if int(failed) == 0 and bool(factor.isfinite().all()) else None
        return self._own


def _always(kept: Tensor | None) -> LowerFactor:
    def lower(site: Site, ridge: float) -> Tensor | None:
        return kept

    return lower


def least_squares(
    covariance: Moment, weight: float, ridge: float = 0.0, lower: LowerFactor = no_factor
) -> LeastSquares:
    """The papers' solver; `covariance` gives E[k k^T] of a site in float64, one at a time in memory."""
    return LeastSquares(covariance, weight, ridge, lower)


def solve(
    residual: Float[Tensor, "fact d_out"],
    keys: Float[Tensor, "fact d_in"],
    covariance: Float[Tensor, "d_in d_in"],
    weight: float,
    site: Site,
) -> Delta:
    """Delta = R K^T (lambda E[k k^T] + K K^T)^-1 by Cholesky in float64, as thin factors where they are smaller.

    Raises:
        CovarianceError: the matrix to be solved with is not positive definite.
    """
    keys, residual = keys.to(covariance), residual.to(covariance)
    factor = _factor(weight * covariance + keys.T @ keys, weight, site)
    if len(keys) > THIN * min(site.d_out, site.d_in):
        dense = torch.cholesky_solve(keys.T @ residual, factor).T
        return Delta(None, None, dense.to(_precise(site)).contiguous())
    right = torch.cholesky_solve(keys.T, factor).T
    return Delta.from_factors(residual.T, right, dtype=_precise(site))


def solve_few(
    residual: Float[Tensor, "fact d_out"],
    keys: Float[Tensor, "fact d_in"],
    lower: Float[Tensor, "d_in d_in"],
    weight: float,
    site: Site,
) -> Delta:
    """The same by Woodbury: Delta = R (I + K^T A^-1 K)^-1 K^T A^-1 with A = lambda L L^T.

    What is factored is as large as the number of facts. `lower` is L, with L L^T = E[k k^T], the ridge included.

    Raises:
        CovarianceError: the numbers are out of all bounds.
    """
    keys, residual = keys.to(lower), residual.to(lower)
    half = cast(Tensor, torch.linalg.solve_triangular(lower, keys.T, upper=False)) / math.sqrt(weight)
    inside = half.T @ half
    inside.diagonal().add_(1)
    solved = cast(Tensor, torch.linalg.solve_triangular(lower.T, half, upper=True)) / math.sqrt(weight)
    right = torch.cholesky_solve(solved.T, _factor(inside, weight, site))
    return Delta.from_factors(residual.T, right, dtype=_precise(site))


def _factor(matrix: Float[Tensor, "d_in d_in"], weight: float, site: Site) -> Float[Tensor, "d_in d_in"]:
    factor, failed = cast("tuple[Tensor, Tensor]", torch.linalg.cholesky_ex(matrix))
    if int(failed) != 0 or not bool(factor.isfinite().all()):
        raise CovarianceError(
            f"The second moments of {site.path} are not positive definite, even with {weight} as "
            "solve.covariance_weight and the facts' own keys added. They were measured on too few tokens, or the file "
            "is damaged: collect them again from more text (`errata covariance collect --samples`)."
        )
    return factor


def _precise(site: Site) -> torch.dtype:
    return torch.promote_types(site.weight.dtype, torch.float32)
