"""Writing that is all or nothing: write aside, then rename."""

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from errata.errors import OutputExists

CACHE_VARIABLE = "ERRATA_CACHE"
"""The environment variable that names another folder than the user's own."""


def cache_root() -> Path:
    """The folder of everything that Errata keeps between runs."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("errata"))


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any error it is removed."""
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)
        os.replace(aside, final)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], overwrite: bool = False) -> Generator[Path]:
    """Yield a temporary folder beside `path`; on success it becomes `path`, on any error it is removed.

    Raises:
        OutputExists: `path` is there and not an empty folder, and `overwrite` is false.
    """
    final = Path(path)
    refuse_existing(final, overwrite)
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent))
    try:
        yield aside
        aside.chmod(0o755)
        if final.is_dir():
            shutil.rmtree(final)
        os.replace(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def refuse_existing(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise `OutputExists` where writing a folder would replace something (before hours of work, not after)."""
    final = Path(path)
    occupied = final.is_file() or (final.is_dir() and any(final.iterdir()))
    if occupied and (final.is_file() or not overwrite):
        raise OutputExists(f"{final} exists already. Name another output folder, or remove this one first.")
