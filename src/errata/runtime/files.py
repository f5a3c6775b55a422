"""Writing that is all or nothing: write aside, then rename. And locks, for what two processes would do twice."""

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from errata.errors import OutputExists

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ERRATA_CACHE"
"""The environment variable that names another folder than the user's own."""


def cache_root() -> Path:
    """The folder of everything that Errata keeps between runs."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("errata"))


WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What the system says where a file cannot be written."""
PART = ".part"


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any error it is removed."""
    final = Path(path)
    with _naming(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=PART, dir=final.parent)
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
    with _naming(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=PART, dir=final.parent))
        try:
            yield aside
            aside.chmod(0o755)
            if final.is_dir():
                shutil.rmtree(final)
            os.replace(aside, final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder; the caller holds its lock, so nobody writes there."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


@contextmanager
def locked(path: str | os.PathLike[str]) -> Generator[None]:
    """Inside, no other process of this user's cache is inside with the same path; it waits. A killed one lets go.

    The path need not exist. Where the cache cannot be written to, or its disk knows no locks, there is none.
    """
    name = hashlib.sha256(os.fsencode(Path(path).absolute())).hexdigest()[:16]
    file = cache_root() / "locks" / f"{name}.lock"
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("Another process is at work on %s. This one waits, and then uses what it finds.", path)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        logger.info("No lock on %s: %s", path, error)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _naming(final: Path) -> Generator[None]:
    """Errors of writing name the file that was asked for: the system names the one aside, or none."""
    try:
        yield
    except OSError as error:
        anonymous = (
            error.filename is None or str(error.filename).endswith(PART) or f"{PART}/" in str(error.filename)
        )
        if error.errno in WRITING and anonymous:
            raise OSError(error.errno, error.strerror, str(final)) from error
        raise


def write_json(file: Path, value: object) -> None:
    """Write a file that people read, too. Call it on a path aside (`atomic_file`, `atomic_folder`)."""
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def refuse_existing(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise `OutputExists` where writing a folder would replace something (before hours of work, not after)."""
    final = Path(path)
    occupied = final.is_file() or (final.is_dir() and any(final.iterdir()))
    if occupied and (final.is_file() or not overwrite):
        raise OutputExists(f"{final} exists already. Name another output folder, or remove this one first.")
