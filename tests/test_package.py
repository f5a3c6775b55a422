"""What `import errata` gives: all public names, quickly, and no torch before something needs it."""

import importlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import errata

LONGEST_IMPORT = 0.5
PUBLIC = [name for name in errata.__all__ if name not in ("__version__", "errors")]


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_loads_no_torch() -> None:
    heavy = ("torch", "transformers", "numpy", "datasets", "rich", "typer")
    loaded = run(f"import errata, sys; print([name for name in {heavy} if name in sys.modules])")
    assert loaded == "[]"


def test_import_is_quick() -> None:
    program = "import time; start = time.perf_counter(); import errata; print(time.perf_counter() - start)"
    assert min(float(run(program)) for _ in range(3)) < LONGEST_IMPORT


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(errata, name)
    assert callable(value)
    assert value is getattr(importlib.import_module(value.__module__), name)
    assert name in dir(errata)


def test_a_submodule_never_hides_a_public_name() -> None:
    """`import errata.x` sets the attribute `x`: no file may bear the name of a public function (decision 0002)."""
    package = Path(errata.__file__).parent
    modules = {path.stem for path in package.glob("*.py")} | {
        path.name for path in package.iterdir() if path.is_dir()
    }
    assert not modules & set(PUBLIC)


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'errata' has no attribute 'edti'"):
        _ = errata.edti  # pyright: ignore


def test_the_version_is_the_installed_one() -> None:
    assert errata.__version__ == version("errata")


def test_type_checkers_find_the_types() -> None:
    assert (Path(errata.__file__).parent / "py.typed").is_file()
