"""The Spread stage: from the values v* to an update of every critical layer.

    Delta^l = R K^T (lambda E[k k^T] + K K^T)^-1,      r_i = (v*_i - current value at layer L) / share(l)

in float64, layers ascending, each with the weights of the layers below already changed (PMET eq. 9 and 11, MEMIT
alg. 1). Nothing here outlives the call: the weights are put back, and the updates are handed out as `Delta`s.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from errata.deltas import Delta, write_delta, written_back
from errata.errors import CovarianceError, SettingsError
from errata.keys import KeyPrompts, KeySettings
from errata.model import EditableModel, Site
from errata.progress import Progress, silent

SiteKind = Literal["ffn", "attention"]
Solver = Callable[[Float[Tensor, "fact d_out"], Float[Tensor, "fact d_in"], Site], Delta]
"""From what is left to bring about at a site, the facts' keys there, and the site: its update."""
SHARES: Mapping[str, Callable[[int], float]] = {"even": float, "sqrt": math.sqrt}
"""By what the residual is divided when so many critical layers are left, this one included."""


@dataclass(frozen=True, kw_only=True)
class ShareSettings(KeySettings):
    """By what the residual is divided in each critical layer, and which maps are written there."""

    spread: Literal["sqrt", "even"]
    write: tuple[SiteKind, ...]

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        if not self.write or len(set(self.write)) != len(self.write):
            raise SettingsError(
                f"Setting 'write' must name one or both of 'attention' and 'ffn': {self.write}."
            )


@dataclass(frozen=True, kw_only=True)
class SpreadSettings(ShareSettings):
    """How values become weights. The papers' symbol: lambda = covariance_weight.

    `covariance_ridge` adds a multiple of the identity to E[k k^T], as a share of its mean eigenvalue (0 in the papers):
    where text hardly ever uses some directions, an update could otherwise grow there without bounds.
    """

    covariance_weight: float
    covariance_ridge: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        if not self.covariance_weight > 0:
            raise SettingsError(f"Setting 'covariance_weight' must be above 0: {self.covariance_weight}.")
        if not self.covariance_ridge >= 0:
            raise SettingsError(f"Setting 'covariance_ridge' must be 0 or more: {self.covariance_ridge}.")
        ShareSettings.__post_init__(self)


@dataclass(frozen=True)
class Write:
    """One kind of map to write in every critical layer, and the value at layer L that it is to bring about."""

    kind: SiteKind
    path: str
    """The module at layer L whose output should become `value`."""
    value: Float[Tensor, "fact d_model"]


@dataclass(frozen=True)
class SpreadStep:
    """What one solve used: kept on request, for tests and analyses."""

    keys: Float[Tensor, "fact d_in"]
    current: Float[Tensor, "fact d_model"]
    residual: Float[Tensor, "fact d_model"]
    """v* - current value, before it is shared out."""


def spread(
    model: EditableModel,
    layers: Sequence[int],
    writes: Sequence[Write],
    prompts: KeyPrompts,
    solver: Solver,
    settings: ShareSettings,
    on_progress: Progress = silent,
    steps: dict[str, SpreadStep] | None = None,
) -> dict[str, Delta]:
    """Share the residuals out over the critical layers and solve for each update; keys are module paths.

    `solver` is asked once for each site, when the layers below have been changed. With several kinds, attention is
    written before the FFN of the same layer.

    Raises:
        CovarianceError: an update cannot be solved for.
    """
    deltas: dict[str, Delta] = {}
    ordered = sorted(writes, key=lambda write: write.kind)
    with model.about_to_change(), ExitStack() as changed:
        for number, layer in enumerate(sorted(layers)):
            left = len(layers) - number
            for write in ordered:
                site = model.site(write.kind, layer)
                keys = prompts.keys(site, settings.key_average)
                current = prompts.values(write.path)
                residual = write.value.to(current) - current
                delta = solver(residual / SHARES[settings.spread](left), keys, site)
                changed.enter_context(written_back(site))
                write_delta(site, delta)
                deltas[site.path] = delta
                if steps is not None:
                    steps[site.path] = SpreadStep(keys, current, residual)
            on_progress("spread", number + 1, len(layers))
    return deltas


def least_squares(
    covariance: Callable[[Site], Float[Tensor, "d_in d_in"]], weight: float, ridge: float = 0.0
) -> Solver:
    """The papers' solver; `covariance` gives E[k k^T] of a site in float64, one at a time in memory."""

    def solver(residual: Float[Tensor, "fact d_out"], keys: Float[Tensor, "fact d_in"], site: Site) -> Delta:
        return solve(residual, keys, ridged(covariance(site), ridge), weight, site)

    return solver


def ridged(moment: Float[Tensor, "d_in d_in"], ridge: float) -> Float[Tensor, "d_in d_in"]:
    """E[k k^T] + ridge * (its mean eigenvalue) * I."""
    if ridge == 0:
        return moment
    moment = moment.clone()
    moment.diagonal().add_(ridge * moment.diagonal().mean())
    return moment


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
    matrix = weight * covariance + keys.T @ keys
    factor, failed = cast("tuple[Tensor, Tensor]", torch.linalg.cholesky_ex(matrix))
    if int(failed) != 0 or not bool(factor.isfinite().all()):
        raise CovarianceError(
            f"The second moments of {site.path} are not positive definite, even with {weight} as covariance_weight and "
            "the facts' own keys added. They were measured on too few tokens, or the file is damaged: collect them "
            "again from more text (`errata covariance collect --samples`)."
        )
    right = torch.cholesky_solve(keys.T, factor).T
    return Delta.from_factors(residual.T, right, dtype=torch.promote_types(site.weight.dtype, torch.float32))
