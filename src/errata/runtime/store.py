"""Where what was computed is kept: a folder of entries, each a file named by a digest of all that changes the answer.

Entries are written all or nothing, and a damaged one counts as none. Tensors are kept as safetensors, with texts in the
header, all else as JSON. torch is loaded by the first tensors that are read or written, not before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from safetensors import SafetensorError, safe_open

from errata.errors import OutputExists
from errata.runtime.files import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
DAMAGED = (SafetensorError, OSError, LookupError, TypeError, ValueError)
"""What is raised where a file is not there, cut off, or not as it was written."""


def digest_of(recipe: object, length: int = 32) -> str:
    """The first digits of the SHA-256 of a text, or of what JSON says of anything else."""
    text = recipe if isinstance(recipe, str) else json.dumps(recipe, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Store:
    """The entries of one kind in a folder; a key is a digest, the file's name without what all names share."""

    folder: Path
    name: str
    """What the entries are, for messages: "Finished values"."""
    prefix: str = ""
    suffix: str = ".safetensors"

    def file(self, key: str) -> Path:
        """Where the entry lies, or would."""
        return self.folder / f"{self.prefix}{key}{self.suffix}"

    def get(self, key: str, read: Callable[[Path], T]) -> T | None:
        """The entry as `read` takes it from its file; None where there is none, or a damaged one."""
        try:
            return read(self.file(key))
        except DAMAGED:
            return None

    def put(self, key: str, write: Callable[[Path], object]) -> None:
        """Replace the entry by what `write` puts into a file, all or nothing.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
        """
        with (
            disk_errors(f"{self.name} cannot be kept in {self.folder}"),
            atomic_file(self.file(key)) as aside,
        ):
            write(aside)

    def clear(self, key: str) -> None:
        """Remove the entry, if there is one."""
        self.file(key).unlink(missing_ok=True)


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file that is open: its header is at hand, a tensor is read when it is asked for."""

    opened: safe_open
    header: Mapping[str, str]

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name."""
        return self.opened.get_tensor(name)

    def part(self, prefix: str = "") -> dict[str, Tensor]:
        """All tensors whose names begin so, by the rest of their names."""
        names = [name for name in self.opened.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name.removeprefix(prefix): self.tensor(name) for name in names}


@contextmanager
def open_tensors(file: Path) -> Generator[TensorFile]:
    """A safetensors file, open inside.

    Raises:
        SafetensorError, OSError: it is not there, cut off or damaged.
    """
    with safe_open(file, framework="pt") as opened:
        yield TensorFile(opened, opened.metadata() or {})


def write_tensors(aside: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file. Call it on a path aside.

    Several texts of a header are written in any order: where equal content shall be equal bytes, there is one.
    """
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, aside, metadata=dict(header))
    aside.chmod(0o644)  # safetensors writes for its owner alone


def save_tensors(
    file: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str], failure: str = ""
) -> None:
    """Write a safetensors file, all or nothing; `failure` begins the message where that cannot be.

    Raises:
        OSError: it cannot be written, for example because the disk is full.
    """
    size = sum(tensor.nbytes for tensor in tensors.values()) / 2**20
    with disk_errors(failure or f"{file} ({size:.0f} MB) cannot be written"), atomic_file(file) as aside:
        write_tensors(aside, tensors, header)


@contextmanager
def disk_errors(failure: str) -> Generator[None]:
    """Whatever cannot be written inside is an OSError whose message begins with `failure`."""
    try:
        yield
    except OutputExists:
        raise
    except (SafetensorError, OSError) as error:
        raise OSError(f"{failure}: {error}. Is the disk full, or write-protected?") from error
