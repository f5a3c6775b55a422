"""What every test starts from: one environment, fixed seeds and threads, models that are as they were made."""

import environment

# isort: split

import typechecks  # noqa: F401  (checks what is imported after it)

# isort: split

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import profiles
from errata.models.model import EditableModel
from errata.moments.collection import collect
from families import check_tiny_models
from moments_cases import TEXTS, Moments

profiles.register()
THREADS = torch.get_num_threads()
MEMORY = 8 * 2**30
"""Bytes that are free on the machine, as the tests see it: batches and refusals follow from it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what draws its inputs at random."""
    for item in items:
        if isinstance(item, pytest.Function) and getattr(item.obj, "is_hypothesis_test", False):
            item.add_marker(pytest.mark.fuzz)


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> None:
    torch.set_num_threads(environment.threads())


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the tests keep for later does not go into the user's cache."""
    os.environ["ERRATA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def fixed_memory() -> Iterator[None]:
    """How much memory is free does not depend on what else runs on the machine."""
    measured = psutil.virtual_memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil, "virtual_memory", lambda: measured._replace(total=2 * MEMORY, available=MEMORY))
        yield


@pytest.fixture(autouse=True, scope="module")
def tiny_models_stay_as_they_are() -> Iterator[None]:
    """They are shared by all tests that a process runs: what one leaves in them another one stumbles over."""
    yield
    check_tiny_models()


@pytest.fixture
def all_threads() -> Iterator[None]:
    """For a test on a model of real size."""
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(environment.threads())


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
