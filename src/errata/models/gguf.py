"""GGUF files: what transformers needs to read one, kept in the cache next to nothing else of it.

Reading the header of a GGUF file is slow where the vocabulary is large (every token is an entry), and transformers
reads it for the configuration, for the tokenizer and for the weights. The first two are small: they are converted
once and kept, under the digest of the file. The weights are dequantized from the file itself each time.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import transformers
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from errata.errors import CheckpointError, MissingExtra, OutputExists, UnknownArchitecture
from errata.runtime import atomic_folder, cache_root

SUFFIX = ".gguf"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
BLOCK = 1 << 20
READING = (ValueError, LookupError, OverflowError, OSError, TypeError, AttributeError, struct.error)
"""What the readers of GGUF raise for a file that is cut off or damaged."""


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file with its digest, and the folder that has its configuration and tokenizer."""

    path: Path
    digest: str
    """SHA-256 of the file."""
    folder: Path

    @property
    def revision(self) -> str:
        """What an edit, a result and second moments record of it."""
        return f"sha256:{self.digest}"

    @property
    def reading(self) -> dict[str, object]:
        """The further words of `from_pretrained`: dequantize this file."""
        config = cast("Callable[..., object] | None", getattr(transformers, "GgufConfig", None))
        words: dict[str, object] = {"gguf_file": str(self.path)}
        # Without GgufConfig, in older versions, transformers always dequantizes.
        return words if config is None else {**words, "quantization_config": config(dequantize=True)}


def is_gguf(path: Path) -> bool:
    """Whether a file calls itself GGUF, by its name or by its first bytes."""
    if path.suffix.lower() == SUFFIX:
        return True
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_gguf(path: Path) -> GgufFile:
    """Check a GGUF file, and convert its configuration and tokenizer unless that was done before.

    Raises:
        MissingExtra: the package gguf is not installed.
        CheckpointError: it is no GGUF file, or cut off or damaged.
        UnknownArchitecture: transformers does not convert its architecture.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra(f"Reading {path} needs the package gguf: pip install 'errata[gguf]'.")
    digest = _check_header(path)
    folder = cache_root() / "gguf" / f"{digest[:32]}-{transformers.__version__}"
    if not (folder / "config.json").is_file():
        try:
            with atomic_folder(folder) as aside:
                _convert(path, aside)
        except OutputExists:
            pass  # Another process was faster.
    return GgufFile(path.absolute(), digest, folder)


def _check_header(path: Path) -> str:
    """The SHA-256 of a file that begins as a GGUF file does."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8 or start[:4] != MAGIC:
            raise CheckpointError(
                f"{path} is not a GGUF file: it does not begin with the bytes GGUF. Give a .gguf file, or the folder "
                "that holds config.json and model.safetensors."
            )
        (version,) = struct.unpack("<I", start[4:])
        if version not in VERSIONS:
            raise CheckpointError(
                f"{path} has GGUF version {version}, and little-endian {' and '.join(map(str, VERSIONS))} can be read. "
                "Convert the model again with current tools."
            )
        digest.update(start)
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _convert(path: Path, folder: Path) -> None:
    """Write the file's configuration and tokenizer as transformers keeps them."""
    words = {"gguf_file": str(path.absolute()), "trust_remote_code": False}
    try:
        config = cast(PretrainedConfig, AutoConfig.from_pretrained(str(folder), **words))
        tokenizer = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(str(folder), **words))
    except READING as error:
        if "architecture" in str(error) and "support" in str(error):
            raise UnknownArchitecture(
                f"transformers does not convert the architecture of {path}: {str(error).rstrip('.')}. Convert the "
                "model to a folder of safetensors, or get the checkpoint that the file was made from."
            ) from error
        raise CheckpointError(
            f"{path} is cut off or damaged ({error}). Download it again, and compare its size."
        ) from error
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def damaged(name: str, error: Exception) -> CheckpointError:
    """The error for a file whose weights cannot be read."""
    return CheckpointError(f"The weights of {name} cannot be read: {error}. Is the file cut off or damaged?")
