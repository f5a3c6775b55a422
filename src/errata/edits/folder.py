"""The files of an edit's folder, which anyone may have made: each size is checked before it is believed.

Nothing but JSON and safetensors is read, nothing outside the folder, and no tensor before its header fits `edit.json`.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import psutil
from safetensors import SafetensorError, safe_open
from torch import Tensor

from errata.edits.deltas import Delta
from errata.errors import EditError
from errata.facts import short

WEIGHTS, ABOUT = "edit.safetensors", "edit.json"
MOST_JSON = 2**28
"""Bytes of `edit.json`: some 100,000 facts with all their questions."""
MOST_ELEMENTS = 2**30
"""Of one matrix. The largest that a published model has are below it (Llama 3.1 405B: 16384 x 53248)."""
SHARE = 0.9
"""Of the free memory, at most this part is filled with an edit."""
MODULE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
LONGEST_PATH = 300
ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
PARTS = ("left", "right", "dense")


def own_file(folder: Path, name: str) -> Path:
    """A file of the folder that is a file, and does not lie elsewhere.

    Raises:
        EditError: it is missing, or a link that leads out of the folder (into the blobs of a hub's cache it may).
    """
    file = folder / name
    if not file.is_file():
        raise EditError(
            f"{folder} is not an edit: it has no {name}. Give the folder that `errata edit` wrote."
        )
    home, real = folder.resolve(), file.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (real.is_relative_to(home) or real.is_relative_to(blobs)):
        raise EditError(
            f"{file} is a link to {real}, outside the folder. Copy the file itself into the folder."
        )
    return file


def read_json(file: Path) -> dict[str, Any]:
    """The object that a file of JSON holds; an empty one where it holds something else.

    Raises:
        EditError: the file is too large, or not readable JSON.
    """
    try:
        size = file.stat().st_size
        if size > MOST_JSON:
            raise EditError(
                f"{file} has {size / 2**20:.0f} MB; an edit's {ABOUT} has {MOST_JSON >> 20} MB at most, so this is "
                "none, or it is damaged. Copy or make the edit again."
            )
        about: object = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        if isinstance(error, EditError):
            raise
        raise EditError(f"{file} is not readable JSON: {error}. Copy or make the edit again.") from error
    return cast("dict[str, Any]", about) if isinstance(about, dict) else {}


def read_deltas(file: Path, shapes: Mapping[str, Sequence[object]]) -> dict[str, Delta]:
    """The changes of the weights, by module path, of just these shapes.

    Raises:
        EditError: the file is damaged, does not fit the shapes, or is larger than memory.
    """
    for path in shapes:
        if len(path) > LONGEST_PATH or not MODULE.fullmatch(path):
            raise EditError(
                f"{file.with_name(ABOUT)} changes {short(path)}, which is no path of a module such as "
                "'transformer.h.3.mlp.c_proj'. Copy or make the edit again."
            )
    try:
        with safe_open(file, framework="pt") as opened:
            names = opened.keys()
            slices = {name: opened.get_slice(name) for name in names}
            header = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
            _check_header(header, shapes, file)
            return {
                path: _delta(path, {name: opened.get_tensor(f"{path}.{name}") for name in there}, file)
                for path, there in _parts_of(header, shapes).items()
            }
    except (SafetensorError, OSError) as error:
        raise EditError(f"{file} is cut off or damaged: {error}. Copy or make the edit again.") from error


Header = Mapping[str, tuple[str, tuple[int, ...]]]
"""The dtype and the shape of each tensor of a file."""


def _parts_of(header: Header, shapes: Mapping[str, object]) -> dict[str, list[str]]:
    return {path: [name for name in PARTS if f"{path}.{name}" in header] for path in shapes}


def _check_header(header: Header, shapes: Mapping[str, Sequence[object]], file: Path) -> None:
    """Raise unless the tensors are those of the shapes, no others, and small enough to be read."""
    parts = _parts_of(header, shapes)
    for path, names in parts.items():
        _check_matrices(path, {name: header[f"{path}.{name}"] for name in names}, tuple(shapes[path]), file)
    named = {f"{path}.{name}" for path, names in parts.items() for name in names}
    for name in header:
        if name not in named:
            raise EditError(f"{file} holds {short(name)}, which {ABOUT} does not name.")
    needed = sum(math.prod(shape) * ITEM_BYTES[dtype] for dtype, shape in header.values())
    free = psutil.virtual_memory().available
    if needed > SHARE * free:
        raise EditError(
            f"{file} holds {needed / 2**30:.1f} GB, and {free / 2**30:.1f} GB of memory are free. If you trust the "
            "edit, load it on a larger machine."
        )


def _check_matrices(path: str, there: Header, shape: tuple[object, ...], file: Path) -> None:
    """Raise unless these are the two factors or the one matrix of a change of that shape."""
    shapes = {name: size for name, (_, size) in there.items()}
    if set(there) not in ({"left", "right"}, {"dense"}) or any(len(size) != 2 for size in shapes.values()):
        raise EditError(f"{file} does not hold {path}.left and {path}.right, or {path}.dense, as matrices.")
    dtypes = {dtype for dtype, _ in there.values()}
    if len(dtypes) > 1 or not dtypes <= ITEM_BYTES.keys():
        found = " and ".join(sorted(dtypes))
        raise EditError(f"{file} holds numbers for {path} as {found}, not as one of {', '.join(ITEM_BYTES)}.")
    if "left" in there and shapes["left"][1] != shapes["right"][0]:
        raise EditError(f"{file}: the factors of {path} do not fit each other.")
    made = shapes["dense"] if "dense" in there else (shapes["left"][0], shapes["right"][1])
    if made != shape:
        raise EditError(f"{file} changes {path} as {made}, but {ABOUT} says {short(str(shape))[1:-1]}.")
    if math.prod(made) > MOST_ELEMENTS or ("left" in there and shapes["left"][1] > min(made)):
        raise EditError(
            f"{file} changes {path} as {made} with factors of {shapes.get('left', made)}: no model has such a matrix, "
            "or needs such factors. Do not use this edit unless you know where it comes from."
        )


def _delta(path: str, there: Mapping[str, Tensor], file: Path) -> Delta:
    if not all(bool(part.isfinite().all()) for part in there.values()):
        raise EditError(f"{file} holds numbers for {path} that are infinite or not a number.")
    return Delta(there.get("left"), there.get("right"), there.get("dense"))
