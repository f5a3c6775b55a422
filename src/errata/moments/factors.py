"""Cholesky factors of second moments, kept in Errata's cache: they depend on no fact, and cost more than a small edit.

    <cache>/factors/<digest>.safetensors:  upper = L^T, float64 [d_in, d_in],  L L^T = E[k k^T] + ridge

A file is named by a digest of the file of second moments that it was made from, so it can belong to no other. On an
accelerator nothing is kept: a factor would have to be brought there.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from errata.models import EditableModel, Site
from errata.moments.folder import belongs, check_positive_definite, moment_path, read_moment
from errata.runtime import Store, cache_root, open_tensors, write_tensors

logger = logging.getLogger(__name__)

VERSION = "1"
UPPER = "upper"
BLOCK = 2**22
"""Bytes that are hashed at a time."""


def ridged(moment: Float[Tensor, "d_in d_in"], ridge: float) -> Float[Tensor, "d_in d_in"]:
    """E[k k^T] + ridge * (its mean eigenvalue) * I."""
    if ridge == 0:
        return moment
    moment = moment.clone()
    moment.diagonal().add_(ridge * moment.diagonal().mean())
    return moment


@dataclass(frozen=True)
class Factors:
    """The factors of the second moments in a folder, of one model."""

    folder: Path
    model: EditableModel

    def lower(self, site: Site, ridge: float) -> Float[Tensor, "d_in d_in"] | None:
        """L of a site in float64; None where keeping it does not pay, or where there is none.

        Raises:
            CovarianceMissing, CovarianceMismatch, CovarianceError: as `read_moment`.
        """
        if site.device.type != "cpu":
            return None
        digest = self._digest(site)
        header = {"errata_factor": VERSION, "moment": digest, "ridge": repr(ridge)}

        def read(file: Path) -> Tensor | None:
            with open_tensors(file) as kept:
                upper = kept.tensor(UPPER) if kept.header == header else None
            fits = upper is not None and upper.shape == (site.d_in,) * 2 and upper.dtype == torch.float64
            return upper if fits else None

        kept = self._store.get(digest[:32], read)
        if kept is not None:
            return kept.T
        moment = ridged(read_moment(self.folder, self.model, site), ridge)
        factor, failed = cast("tuple[Tensor, Tensor]", torch.linalg.cholesky_ex(moment))
        del moment
        if int(failed) != 0 or not bool(factor.isfinite().all()):
            return None
        try:
            self._store.put(digest[:32], lambda aside: write_tensors(aside, {UPPER: factor.T}, header))
        except OSError as error:
            logger.info("The Cholesky factor is not kept: %s", error)
        return factor

    def check(self, site: Site) -> None:
        """Raise unless the second moments of a site can be solved with; quick where that has been seen before.

        Raises:
            CovarianceMissing, CovarianceMismatch, CovarianceError: as `read_moment`; not positive definite.
        """
        digest = self._digest(site)
        if self._store.get(digest[:32], _moment_of) != digest:
            path = moment_path(self.folder, site.path)
            check_positive_definite(read_moment(self.folder, self.model, site), path)

    @property
    def _store(self) -> Store:
        return Store(cache_root() / "factors", "Cholesky factors")

    def _digest(self, site: Site) -> str:
        """Of the file of second moments, which must be there and belong to the model and the site."""
        digest = hashlib.sha256()
        with belongs(self.folder, self.model, site).path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()


def _moment_of(file: Path) -> str:
    """The digest of the second moments that a factor is of."""
    with open_tensors(file) as kept:
        return kept.header["moment"]
