"""Import of the second moments that the published ROME and MEMIT programs wrote, as people have them on disk."""

import os
import zipfile
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from errata.errors import CovarianceError, CovarianceMismatch, CovarianceMissing, OutputExists
from errata.models import EditableModel, Site
from errata.moments.folder import check_moment, moment_path, write_moment

PUBLISHED_MOMENT = "mom2.mom2"
PUBLISHED_COUNT = "mom2.count"
UNREADABLE = (ValueError, TypeError, EOFError, OSError, AttributeError, zipfile.BadZipFile)
"""What numpy raises where a file is no archive, is cut off, or holds pickled objects."""


@runtime_checkable
class _Arrays(Protocol):
    """What is used of numpy's `NpzFile`."""

    @property
    def files(self) -> list[str]: ...

    def __getitem__(self, name: str) -> NDArray[np.generic]: ...


def import_npz(
    file: str | os.PathLike[str], model: EditableModel, site: Site, folder: str | os.PathLike[str]
) -> Path:
    """Store the second moments that the published ROME and MEMIT programs wrote: `mom2.mom2`, a sum, over `mom2.count`.

    Raises:
        CovarianceMissing: there is no such file.
        CovarianceMismatch: it is of another size, or named after another site.
        CovarianceError: it is no such file, or not finite.
        OutputExists: the folder has this site already.
    """
    source = Path(file)
    _check_published_name(source, model, site)
    target = moment_path(folder, site.path)
    if target.exists():
        raise OutputExists(f"{target} exists already. Name another folder, or remove this file first.")
    total, count = _published_arrays(source)
    moment = torch.from_numpy(total).to(torch.float64) / count
    check_moment(moment, site, model, f"{source}, {PUBLISHED_MOMENT}")
    return write_moment(folder, model, site, moment, count, {"corpus": f"imported from {source.name}"})


def _published_arrays(source: Path) -> tuple[NDArray[np.generic], int]:
    """The sum and the count of a published file."""
    if not source.is_file():
        raise CovarianceMissing(f"There is no file {source} to import.")
    with _opened(source) as arrays:
        lacking = [name for name in (PUBLISHED_MOMENT, PUBLISHED_COUNT) if name not in arrays.files]
        found = ", ".join(arrays.files) or "nothing"
        total, count = (None, None) if lacking else (arrays[PUBLISHED_MOMENT], arrays[PUBLISHED_COUNT])
    if total is None or count is None:
        raise CovarianceError(
            f"{source} lacks {' and '.join(map(repr, lacking))}; it holds {found}. The statistics files of ROME and "
            "MEMIT (..._mom2_100000.npz) have both."
        )
    if total.dtype.kind != "f":
        raise CovarianceError(
            f"{source}: {PUBLISHED_MOMENT} holds {total.dtype}, not floating-point numbers."
        )
    if count.size != 1 or count.dtype.kind not in "iuf" or not 1 <= float(count.item()) < float("inf"):
        raise CovarianceError(
            f"{source}: {PUBLISHED_COUNT} must be one number above 0, not {count.tolist()}."
        )
    return total, int(count.item())


@contextmanager
def _opened(source: Path) -> Generator[_Arrays, None, None]:
    """The arrays of a file, each read when it is asked for: the pickled ones never are."""
    try:
        with (
            source.open("rb") as file,
            cast(AbstractContextManager[_Arrays], np.load(file, allow_pickle=False)) as arrays,
        ):
            yield arrays
    except UNREADABLE as error:
        raise CovarianceError(
            f"{source} is not a readable .npz file ({error}). Give a statistics file of ROME or MEMIT, whole."
        ) from error


def _check_published_name(source: Path, model: EditableModel, site: Site) -> None:
    """The published files are named `<module path>_float32_mom2_100000.npz`: use that where it is still so."""
    named = source.name.partition("_float")[0]
    paths = [
        model.architecture.site_path(kind, layer)
        for kind in ("ffn", "attention")
        for layer in range(model.layers)
    ]
    if named in paths and named != site.path:
        raise CovarianceMismatch(
            f"{source.name} is named after {named}, but {site.path} was asked for. Give the layer that the file is of, "
            "or rename the file if its name is wrong."
        )
