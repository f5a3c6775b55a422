"""What every test starts from: fixed seeds and one thread, as the tiny models are too small for two to pay off."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from errata.models.model import EditableModel
from errata.moments.collection import collect
from moments_cases import TEXTS, Moments

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the tests keep for later does not go into the user's cache."""
    os.environ.setdefault("ERRATA_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def all_threads() -> Iterator[None]:
    """For a test on a model of real size."""
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Moments:
    """A folder of second moments of both kinds of all layers that are edited here, measured once for each model."""
    folders: dict[EditableModel, Path] = {}

    def folder_of(model: EditableModel) -> Path:
        if model not in folders:
            folders[model] = tmp_path_factory.mktemp("moments")
            sites = [model.site(kind, layer) for kind in ("ffn", "attention") for layer in (0, 1, 2, 3)]
            collect(model, sites, TEXTS, folder=folders[model], corpus="sentences", samples=len(TEXTS))
        return folders[model]

    return folder_of
