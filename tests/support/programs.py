"""The programs of benchmarks/ as modules."""

import importlib
import sys
from pathlib import Path
from types import ModuleType


def benchmark(name: str) -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)
