"""AlphaEdit (Fang et al., ICLR 2025): MEMIT's values, written only where the model's own keys hardly ever are.

    Delta^l = R K^T P (K_p K_p^T P + K K^T P + c I)^-1,      P = U U^T

U: the eigenvectors of E[k k^T] with an eigenvalue below `solve.threshold`, or as many of the smallest ones as have
`solve.null_share` of the trace together; K_p: the keys of all edits before this one; c: `solve.ridge`, or what lets a
solve for the median fact alone realize `solve.realised_share` of its residual, c = median_i(|U^T k_i|^2) (1 - rho)/rho.
As it reads, the matrix to invert is not symmetric. In the basis U it is, and positive definite:

    Delta^l = R (U^T K)^T M^-1 U^T,      M = U^T (K_p K_p^T + K K^T) U + c I

Proof: with A = K_p K_p^T + K K^T, U^T (A P + c I) = (U^T A U + c I) U^T = M U^T, so U^T (A P + c I)^-1 = M^-1 U^T;
multiplied by R K^T U from the left, this is the formula, as K^T P = K^T U U^T.
"""

import math
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from errata.edits import Delta, Realized
from errata.errors import CovarianceError, SettingsError
from errata.methods.base import (
    LAYERS,
    LOOKUP,
    Changes,
    Method,
    Task,
    check_block_value,
    check_layers,
    share_out,
    written_sites,
)
from errata.models import EditableModel, Site
from errata.passes import Lookup
from errata.settings import about
from errata.solve import KeySettings, Solver, SpreadSettings, check_weight, earlier_key_sum, realized
from errata.values import ValueSettings


@dataclass(frozen=True, kw_only=True)
class NullSpaceSettings:
    """Where and how far AlphaEdit writes."""

    threshold: float | None = field(
        default=None,
        metadata=about("Directions are written whose eigenvalue in the second moments is below this."),
    )
    null_share: float | None = field(
        default=None,
        metadata=about(
            "Instead of that: the smallest eigenvalues are written that sum up to this share of all of them."
        ),
    )
    ridge: float | None = field(
        default=None,
        metadata=about("Weight of the size of the update: the larger, the gentler the write."),
    )
    realised_share: float | None = field(
        default=None,
        metadata=about(
            "Instead of that weight: the share of its change that the median fact gets, above 0, below 1."
        ),
    )

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_weight("ridge", self.ridge, self.realised_share)
        check_weight("threshold", self.threshold, self.null_share, "null_share")


@dataclass(frozen=True, kw_only=True)
class AlphaEditSettings:
    """MEMIT's, with another solver."""

    layers: tuple[int, ...] = field(metadata=about(LAYERS))
    lookup: Lookup = field(default="subject_last", metadata=about(LOOKUP))
    values: ValueSettings
    keys: KeySettings
    spread: SpreadSettings
    solve: NullSpaceSettings

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_layers(self.layers)


def check(model: EditableModel, settings: AlphaEditSettings) -> None:
    """AlphaEdit's value is MEMIT's.

    Raises:
        SettingsError: another place than the block's output or the FFN's own, or another weight than the FFN's.
        UnsupportedArchitecture: the value is the block's output, and the family normalizes after the FFN.
    """
    check_block_value(model, settings, "alphaedit")


def alphaedit(task: Task, settings: AlphaEditSettings) -> Changes:
    """v* = h^L + delta as MEMIT's, written into the null space; `Changes.key_sums` has K K^T for later edits.

    K_p are the keys in `task.earlier`, and those of the edits that are in the model.

    Raises:
        SettingsError: no eigenvalue is below the threshold.
        NoFactsLeft: no fact has a value.
    """
    for site in written_sites(task.model, settings):
        check_null_space(task.covariance(site), settings.solve, site)
    targets = task.optimize(settings)
    solver = _Solver(task, settings)
    changes = share_out(task, targets, settings, lambda _: settings.values.optimize[0], solver)
    return replace(changes, key_sums=solver.key_sums)


@dataclass(frozen=True)
class _Solver:
    """The spread stage's solver; remembers each site's K K^T."""

    task: Task
    settings: AlphaEditSettings
    key_sums: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    basis: Tensor | None = None
    """U of the site, once it is known."""
    ridge: float | None = None

    def __call__(
        self, residual: Float[Tensor, "fact d_out"], keys: Float[Tensor, "fact d_in"], site: Site
    ) -> Delta:
        basis, ridge = self._settled()
        keys, residual = keys.to(basis), residual.to(basis)
        earlier = self._earlier(site).to(basis)
        self.key_sums[site.path] = keys.T @ keys
        right = null_space_solve(keys, earlier, basis, ridge)
        precise = torch.promote_types(site.weight.dtype, torch.float32)
        return Delta.from_factors(residual.T, right, dtype=precise)

    def solve_sums(
        self, cross: Float[Tensor, "d_out d_in"], key_sum: Float[Tensor, "d_in d_in"], site: Site
    ) -> Delta:
        """The same update from R K^T and K K^T."""
        basis, ridge = self._settled()
        self.key_sums[site.path] = key_sum
        earlier = self._earlier(site)
        factor = _inside(earlier.to(basis).add_(key_sum.to(basis)), basis, ridge)
        dense = torch.cholesky_solve((cross.to(basis) @ basis).T, factor).T @ basis.T
        precise = torch.promote_types(site.weight.dtype, torch.float32)
        return Delta(None, None, dense.to(precise).contiguous())

    def gauge(self, site: Site) -> "_Gauge":
        """Measures the ridge, or chooses it, for the facts of one site."""
        covariance = self.task.covariance(site)
        return _Gauge(self, site, null_space(covariance, threshold_for(covariance, self.settings.solve)))

    def _settled(self) -> tuple[Float[Tensor, "d_in kept"], float]:
        assert self.basis is not None, "the gauge of each site settles it"
        assert self.ridge is not None, "the gauge of each site settles it"
        return self.basis, self.ridge

    def _earlier(self, site: Site) -> Float[Tensor, "d_in d_in"]:
        own = self.settings
        return earlier_key_sum(self.task.model, site, own.lookup, own.keys, self.task.earlier)


@dataclass
class _Gauge:
    """The ridge at one site: in the null space, a key's leverage is |U^T k|^2."""

    of: _Solver
    site: Site
    basis: Float[Tensor, "d_in kept"]
    found: list[float] = field(default_factory=list[float])

    def see(self, keys: Float[Tensor, "fact d_in"]) -> None:
        """Add the leverages of some facts."""
        self.found += cast("list[float]", (keys.to(self.basis) @ self.basis).square().sum(dim=1).tolist())

    def solver(self, rows: bool = True) -> tuple[Solver, Realized | None]:
        """The solver with its ridge settled.

        Raises:
            CovarianceError: a share is asked for, and no key reaches into the null space.
        """
        del rows
        own = self.of.settings.solve
        measured = realized(self.found, own.ridge, own.realised_share)
        ridge = own.ridge if measured is None else measured.weight
        if ridge is None:
            raise CovarianceError(
                f"solve.realised_share cannot be brought about at {self.site.path}: the facts' keys do not reach "
                "into the null space. Set a larger solve.null_share, or solve.ridge."
            )
        return replace(self.of, basis=self.basis, ridge=ridge), measured


def null_space_solve(
    keys: Float[Tensor, "fact d_in"],
    earlier: Float[Tensor, "d_in d_in"],
    basis: Float[Tensor, "d_in kept"],
    ridge: float,
) -> Float[Tensor, "fact d_in"]:
    """(U^T K)^T M^-1 U^T by Cholesky; Delta is R times it. `earlier` is K_p K_p^T, `basis` U."""
    factor = _inside(earlier + keys.T @ keys, basis, ridge)
    return torch.cholesky_solve((keys @ basis).T, factor).T @ basis.T


def _inside(
    key_sum: Float[Tensor, "d_in d_in"], basis: Float[Tensor, "d_in kept"], ridge: float
) -> Float[Tensor, "kept kept"]:
    """The Cholesky factor of M."""
    matrix = basis.T @ key_sum @ basis
    matrix.diagonal().add_(ridge)
    return cast(Tensor, torch.linalg.cholesky(matrix))


def null_space(covariance: Float[Tensor, "d_in d_in"], threshold: float) -> Float[Tensor, "d_in kept"]:
    """U, the eigenvectors of E[k k^T] whose eigenvalue is below the threshold, as columns."""
    values, vectors = cast("tuple[Tensor, Tensor]", torch.linalg.eigh(covariance))
    return vectors[:, values < threshold]


def threshold_for(covariance: Float[Tensor, "d_in d_in"], settings: NullSpaceSettings) -> float:
    """The eigenvalue below which directions are written: `threshold`, or what `null_share` comes to.

    The latter is halfway between the last eigenvalue whose sum with all smaller ones stays below the share of the trace
    and the next one: infinite where all are, 0 where none is.
    """
    if settings.threshold is not None:
        return settings.threshold
    assert settings.null_share is not None
    values = cast(Tensor, torch.linalg.eigvalsh(covariance)).clamp(min=0)
    free = int((values.cumsum(0) < settings.null_share * values.sum()).sum())
    if free == len(values):
        return math.inf
    return float(values[free - 1] + values[free]) / 2 if free else 0.0


def check_null_space(covariance: Float[Tensor, "d_in d_in"], settings: NullSpaceSettings, site: Site) -> None:
    """Raise where no direction would be left to write in: then E[k k^T] - threshold * I is positive definite.

    Raises:
        SettingsError: naming the spectrum.
    """
    name, share = "threshold", settings.null_share
    limit = settings.threshold
    if limit is None:
        assert share is not None
        name, limit = "null_share", share * float(covariance.diagonal().sum())
    shifted = covariance.clone()
    shifted.diagonal().sub_(limit)
    if int(cast(Tensor, torch.linalg.cholesky_ex(shifted)[1])) != 0:
        return
    values = cast(Tensor, torch.linalg.eigvalsh(covariance))
    smallest, middle, largest = (float(values[index]) for index in (0, len(values) // 2, -1))
    better = middle if share is None else float(values[: len(values) // 2].sum() / values.sum())
    raise SettingsError(
        f"Setting 'solve.{name}' is {getattr(settings, name):g}, but no eigenvalue of the second moments of "
        f"{site.path} is that small: they run from {smallest:.2g} over {middle:.2g} in the middle to {largest:.2g}. No "
        f"direction would be left to write in. With --set solve.{name}={better:.2g} half of them are."
    )


METHOD = Method(
    name="alphaedit",
    summary="MEMIT's values, written into the null space of what the model knows and of earlier edits",
    source="Fang et al., AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models, ICLR 2025",
    writes="the FFN's down projection in every critical layer",
    order="batch",
    cost="up to `values.steps` passes over 7 short texts, forward and back; a share of one eigenvalue problem a layer",
    settings=AlphaEditSettings,
    check=check,
    moments=written_sites,
    sites=lambda settings: (settings,),
    solver=_Solver,
    run=alphaedit,
    earlier_keys="always",
)
