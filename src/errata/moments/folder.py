"""Second moments of keys as they are stored: one safetensors file per site, checked when read. docs/covariance.md.

    <folder>/<module path>.safetensors:  second_moment = E[k k^T], float32 [d_in, d_in];  count = tokens it is a mean of

Files that Errata wrote also say, in their header, what they belong to. Those of other programs hold the arrays alone.
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from errata import __version__
from errata.errors import CovarianceError, CovarianceMismatch, CovarianceMissing
from errata.models import EditableModel, Site, solving_device
from errata.runtime import open_tensors, save_tensors

FORMAT_VERSION = 1
MOMENT = "second_moment"
COUNT = "count"
ASYMMETRY = 1e-3
"""More than float32 sums leave between the two halves of a symmetric matrix, relative to its largest element."""
DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class StoredMoment:
    """What a file says about itself, without its matrix being read."""

    path: Path
    site: str
    d_in: int
    count: float
    metadata: Mapping[str, str]


def moment_path(folder: str | os.PathLike[str], site: str) -> Path:
    """The file of the site at module path `site`."""
    return Path(folder) / f"{site}.safetensors"


def write_moment(
    folder: str | os.PathLike[str],
    model: EditableModel,
    site: Site,
    moment: Float[Tensor, "d_in d_in"],
    count: int,
    details: Mapping[str, str],
) -> Path:
    """Store E[k k^T] of a site, all or nothing, with `details` of how it was measured and what it belongs to.

    Raises:
        CovarianceMismatch: the matrix has another size than the site.
        CovarianceError: it is not finite or not symmetric.
        OSError: it cannot be written; nothing is left behind.
    """
    path = moment_path(folder, site.path)
    check_moment(moment, site, model, str(path))
    header = {
        "errata_format": str(FORMAT_VERSION),
        "errata_version": __version__,
        "model": model.name,
        "revision": model.revision or "",
        "fingerprint": model.fingerprint,
        "site": site.path,
        **details,
    }
    tensors = {MOMENT: moment.to(device="cpu", dtype=torch.float32).contiguous(), COUNT: torch.tensor(count)}
    save_tensors(path, tensors, header)
    return path


def read_moment(
    folder: str | os.PathLike[str], model: EditableModel, site: Site
) -> Float[Tensor, "d_in d_in"]:
    """E[k k^T] of a site in float64, where the site's weight is; refused unless it belongs to this model and site.

    Raises:
        CovarianceMissing: there is no such file; the message has the command that makes it.
        CovarianceMismatch: it was measured for another model, revision, site or dtype, or has another size.
        CovarianceError: it is damaged, incomplete, not finite, or not symmetric.
    """
    path = belongs(folder, model, site).path
    try:
        with open_tensors(path) as kept:
            moment = kept.tensor(MOMENT)
    except (SafetensorError, OSError) as error:
        raise CovarianceError(_damaged(path, error)) from error
    if moment.dtype not in DTYPES:
        raise CovarianceError(
            f"{path}: second_moment is {_name(moment.dtype)}, too coarse to be solved with. Store it as float32."
        )
    check_moment(moment, site, model, str(path))
    moment = moment.to(torch.float64)
    return (moment + moment.T).div_(2).to(solving_device(site.device))


def belongs(folder: str | os.PathLike[str], model: EditableModel, site: Site) -> StoredMoment:
    """What the file of a site says about itself; refused unless it is of this model and site.

    Raises:
        CovarianceMissing: there is no such file; the message has the command that makes it.
        CovarianceMismatch: it was measured for another model, revision, site or dtype.
        CovarianceError: it is damaged or incomplete.
    """
    path = moment_path(folder, site.path)
    if not path.is_file():
        raise CovarianceMissing(_missing_advice(path, model, site))
    stored = describe(path)
    _check_identity(stored, model, site)
    return stored


def describe(path: Path) -> StoredMoment:
    """Read everything of a file but its matrix.

    Raises:
        CovarianceError: it is damaged, or lacks `second_moment` or `count`.
    """
    try:
        with open_tensors(path) as kept:
            names = kept.opened.keys()
            lacking = [name for name in (MOMENT, COUNT) if name not in names]
            if lacking:
                raise CovarianceError(
                    f"{path} lacks {' and '.join(map(repr, lacking))}; it holds {', '.join(names) or 'nothing'}. A "
                    "file of second moments has 'second_moment' [d_in, d_in] and 'count', the number of tokens."
                )
            shape, count = kept.opened.get_slice(MOMENT).get_shape(), kept.tensor(COUNT).double()
    except (SafetensorError, OSError) as error:
        raise CovarianceError(_damaged(path, error)) from error
    if count.numel() != 1 or not 0 < float(count) < float("inf"):
        raise CovarianceError(f"{path}: count must be one number above 0, not {count.tolist()}.")
    return StoredMoment(
        path, path.name.removesuffix(".safetensors"), shape[0] if shape else 0, float(count), kept.header
    )


def moments_of(folder: str | os.PathLike[str]) -> list[StoredMoment]:
    """What a folder holds, in the order of the module paths (layer 10 after layer 9).

    Raises:
        CovarianceMissing: there is no such folder, or no second moments in it.
        CovarianceError: one of its files is damaged or something else.
    """
    root = Path(folder)
    files = sorted(root.glob("*.safetensors"), key=lambda path: _natural(path.name))
    if not files:
        why = "holds no .safetensors file" if root.is_dir() else "is not a folder"
        raise CovarianceMissing(
            f"{root} {why}, so there are no second moments to read. `errata covariance collect` makes them."
        )
    return [describe(path) for path in files]


def check_positive_definite(moment: Float[Tensor, "d_in d_in"], path: str | os.PathLike[str]) -> None:
    """Raise unless a Cholesky factor of the moment exists; the message tells the likely reason.

    Raises:
        CovarianceError: measured on too few tokens, a unit that never fires, or a damaged file.
    """
    failed = cast(Tensor, torch.linalg.cholesky_ex(moment.double())[1])
    if not bool(failed):
        return
    size = moment.shape[0]
    dead = int((moment.diagonal() == 0).sum())
    tokens = f"{describe(Path(path)).count:.0f}" if Path(path).is_file() else "an unknown number of"
    reason = f"measured on {tokens} tokens, which have to span the {size} inputs of the site and do not"
    if dead:
        reason += f" ({dead} of the inputs are zero on every token)"
    raise CovarianceError(
        f"The second moments in {path} are not positive definite: {reason}. Collect them again from more text, at "
        f"least some {10 * size} tokens (`errata covariance collect ... --samples N`)."
    )


def check_moment(moment: Tensor, site: Site, model: EditableModel, where: str) -> None:
    """Raise unless a matrix can be E[k k^T] of a site; `where` begins the message.

    Raises:
        CovarianceMismatch: it has another size.
        CovarianceError: it is not finite or not symmetric.
    """
    if tuple(moment.shape) != (site.d_in, site.d_in):
        raise CovarianceMismatch(
            f"{where}: second_moment is {_shape(moment.shape)}, but {site.path} of {model.name} has {site.d_in} "
            f"inputs, so it must be {site.d_in} x {site.d_in}. It belongs to another model."
        )
    wrong = int((~moment.isfinite()).sum())
    if wrong:
        raise CovarianceError(
            f"{where}: {wrong} of {moment.numel()} elements are infinite or not a number. Collect it again; where the "
            "model overflows in float16, load it with --dtype bfloat16 or float32."
        )
    largest = float(moment.abs().max())
    apart = float((moment - moment.T).abs().max())
    if apart > ASYMMETRY * largest:
        raise CovarianceError(
            f"{where}: not symmetric (two mirrored elements differ by {apart:.3g}, the largest is {largest:.3g}), so "
            "it is no second moment E[k k^T]. Collect it again."
        )


def _check_identity(stored: StoredMoment, model: EditableModel, site: Site) -> None:
    """Compare what the file says with the model; what either side does not know is not compared."""
    said = stored.metadata
    if "errata_format" not in said:
        return
    if said["errata_format"] != str(FORMAT_VERSION):
        raise CovarianceError(
            f"{stored.path} has format {said['errata_format']}; this Errata ({__version__}) reads format "
            f"{FORMAT_VERSION}. Update Errata, or collect it again."
        )
    expected = {
        "site": site.path,
        "fingerprint": model.fingerprint,
        "revision": model.revision or "",
        "dtype": _name(model.dtype),
    }
    for what, wanted in expected.items():
        found = said.get(what, "")
        if found and wanted and found != wanted:
            raise CovarianceMismatch(
                f"{stored.path} was measured for another {_WORDS[what]}: it says {found}, but {site.path} of "
                f"{model.name} is asked for, which has {wanted}. {_ADVICE[what]}"
            )


_WORDS = {
    "site": "site",
    "fingerprint": "model (fingerprint of the weights)",
    "revision": "revision",
    "dtype": "dtype",
}
_ADVICE = {
    "site": "A file's name is its site's module path: do not rename or copy these files.",
    "fingerprint": "Collect the second moments of this very model into another folder.",
    "revision": "Load that revision, or collect those of this one into another folder.",
    "dtype": "Load the model with that --dtype, or collect them in this one into another folder.",
}


def _missing_advice(path: Path, model: EditableModel, site: Site) -> str:
    kind = "" if site.kind == "ffn" else f" --kind {site.kind}"
    command = f"errata covariance collect {shlex.quote(model.name)} --layers {site.layer}{kind}"
    return (
        f"There are no second moments of {site.path}: {path} does not exist. This command measures them:\n"
        f"  {command} --output {shlex.quote(str(path.parent))}"
    )


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is cut off or damaged ({error}). Remove it and collect (or import) it again."


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """A sorting key by which layer 10 comes after layer 9."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in name.split("."))


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
