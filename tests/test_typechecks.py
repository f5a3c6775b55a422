"""The checks of types that run with the tests: those of inner functions are made once, and check every one of them."""

import importlib
import sys
import weakref
from pathlib import Path
from types import ModuleType

import jaxtyping
import pytest
import torch

import typechecks

MODULE = """
from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def scaled(factor):
    def apply(rows: Float[Tensor, "row column"], x: Float[Tensor, "column"], n: int = factor) -> Float[Tensor, "row"]:
        return n * (rows @ x) if n else rows

    return apply
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """A module with an inner function, checked as those of Errata are."""
    folder: Path = tmp_path_factory.mktemp("shaped")
    (folder / "shaped_module.py").write_text(MODULE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        with jaxtyping.install_import_hook(["shaped_module"], "beartype.beartype"):
            return importlib.import_module("shaped_module")
    finally:
        sys.path.remove(str(folder))


def test_each_inner_function_is_called_and_checked(module: ModuleType) -> None:
    known = len(typechecks.CHECKS)
    rows, x = torch.ones(2, 3), torch.ones(3)
    two, three = module.scaled(2), module.scaled(3)
    assert len(typechecks.CHECKS) <= known + 1
    assert (two(rows, x).tolist(), three(rows, x).tolist(), two(rows, x, 5).tolist()) == (
        [6.0, 6.0],
        [9.0, 9.0],
        [15.0, 15.0],
    )
    for scale in (two, three, module.scaled(4)):
        with pytest.raises(jaxtyping.TypeCheckError, match="checking the parameters"):
            scale(rows, torch.ones(4))
        with pytest.raises(jaxtyping.TypeCheckError, match="checking the parameters"):
            scale(rows, x, "two")
        with pytest.raises(jaxtyping.TypeCheckError, match="checking the return value"):
            scale(rows, x, 0)


def test_the_checks_keep_no_inner_function_alive(module: ModuleType) -> None:
    scale = module.scaled(2)
    scale(torch.ones(2, 3), torch.ones(3))
    gone = weakref.ref(scale)
    del scale
    assert gone() is None
