"""Checkpoints of tiny models in folders."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers.utils import logging

from families import tiny_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with a family's tiny model, made once; tests that spoil it take `folder`."""
    made: dict[tuple[str, str], Path] = {}

    def save(name: str = "gpt2", dtype: str = "float32") -> Path:
        if (name, dtype) not in made:
            logging.disable_progress_bar()
            made[name, dtype] = tmp_path_factory.mktemp("checkpoint") / name.replace(" ", "-")
            model = tiny_model(name, dtype)
            model.model.save_pretrained(made[name, dtype])
            model.tokenizer.save_pretrained(made[name, dtype])
        return made[name, dtype]

    return save


@pytest.fixture
def folder(saved: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of GPT-2's, to be spoilt."""
    return Path(shutil.copytree(saved(), tmp_path / "model"))
