"""Checkpoints of tiny models, and how loading one is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from errata.errors import CheckpointError
from errata.models.loading import load
from families import FAMILIES

every_family = pytest.mark.parametrize("name", FAMILIES)


def refused(source: Path | str, error: type[Exception] = CheckpointError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        load(source, **options)
    assert type(caught.value) is error
    return str(caught.value)


def says(message: str, *parts: str) -> None:
    for part in parts:
        assert part in message, message


def change_config(folder: Path, **fields: object) -> None:
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def shard(folder: Path) -> list[Path]:
    """Cut model.safetensors into two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = [folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    parts = (names[: len(names) // 2], names[len(names) // 2 :])
    for file, part in zip(files, parts, strict=True):
        save_file({name: tensors[name] for name in part}, file, metadata={"format": "pt"})
    weight_map = {name: file.name for file, part in zip(files, parts, strict=True) for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return files
