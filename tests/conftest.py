"""What every test starts from: fixed seeds and one thread, as the tiny models are too small for two to pay off."""

import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

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
