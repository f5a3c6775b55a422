"""The house keeps its order: who may import whom, and what may stand where. Read with `ast`, so nothing is run."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "errata"
LONGEST_FILE = 400

# The rooms of each floor. A file imports from smaller floors, and from the files before it in its own room: a room is
# one file of the design, or a few where one would have been too long. A folder is a room; its files import each other.
FLOORS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (0, ("errors", "progress", "files")),
    (1, ("wording", "probes", "records", "facts", "templates", "preserving", "catalog")),
    (1, ("rows", "written", "outcomes", "metrics", "scores", "results")),
    (1, ("preset_files", "layer_rules", "settings")),
    (1, ("architectures",)),
    (1, ("processes",)),
    (2, ("harness",)),
    (2, ("fingerprint", "offload", "model", "loading")),
    (3, ("prompts", "contexts", "memory", "side_by_side")),
    (4, ("bypass", "resume")),
    (5, ("losses", "descent", "target_shares", "targets", "target_store", "surprisal")),
    (5, ("corpora", "moments", "moment_import", "key_sums", "covariance", "factors")),
    (5, ("shelf", "row_batches", "streams", "keys")),
    (6, ("deltas", "edit_folder", "cards", "adapters", "edits", "exchange")),
    (7, ("spread",)),
    (8, ("methods",)),
    (8, ("evaluation",)),
    (8, ("analysis",)),
    (8, ("sizes",)),
    (9, ("strategies",)),
    (9, ("neighbors",)),
    (9, ("stacks",)),
    (9, ("embedded",)),
    (9, ("tracking",)),
    (10, ("experiments",)),
    (11, ("report",)),
    (12, ("web",)),
    (13, ("cli",)),
    (14, ("__main__",)),
)
WITHOUT_TORCH = ("errors", "progress", "files", "facts", "results", "settings", "architectures")

FAMILY = re.compile(r"gpt|neox|llama|mistral|qwen|gemma|olmo", re.IGNORECASE)
FAMILIES_ALLOWED = ("architectures.py", "embedded/")
"""The embedded folder may say what the embedded model is."""


def files() -> list[str]:
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def room_of(module: str) -> tuple[int, tuple[str, ...]]:
    """The floor and the room of `errata.<module>`."""
    for floor, room in FLOORS:
        if module in room:
            return floor, room
    raise AssertionError(f"{module} has no floor: give it one in FLOORS")


def module_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imported_modules(file: str) -> Iterator[tuple[int, str]]:
    """Line and module of each import of the package's own; `from errata import x` counts as `errata.x`."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the import in full, from errata..."
            if node.module == "errata":
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif node.module is not None and node.module.startswith("errata."):
                yield node.lineno, node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("errata."):
                    yield node.lineno, alias.name.split(".")[1]


def may_import(module: str, other: str) -> bool:
    (floor, room), (other_floor, _) = room_of(module), room_of(other)
    if other in room:
        is_folder = (PACKAGE / module).is_dir()
        return is_folder or room.index(other) < room.index(module)
    return other_floor < floor


@pytest.mark.parametrize("file", [file for file in files() if file != "__init__.py"])
def test_a_file_imports_from_smaller_floors_only(file: str) -> None:
    climbing = [
        f"{file}:{line} imports {other}"
        for line, other in imported_modules(file)
        if not other.startswith("__") and not may_import(module_of(file), other)
    ]
    assert not climbing


def test_the_rule_sees_what_it_forbids() -> None:
    assert may_import("targets", "prompts")
    assert may_import("records", "probes")
    assert not may_import("probes", "records")
    assert not may_import("targets", "keys")
    assert not may_import("facts", "results")
    assert not may_import("model", "prompts")


def test_the_ground_floors_load_no_torch() -> None:
    imports = "; ".join(f"import errata.{module}" for module in WITHOUT_TORCH)
    program = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("file", files())
def test_a_file_is_short_enough_to_read(file: str) -> None:
    lines = (PACKAGE / file).read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE


@pytest.mark.parametrize("file", [file for file in files() if not file.startswith("cli/")])
def test_only_the_command_line_prints(file: str) -> None:
    printing = [
        node.lineno
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printing, f"{file} prints in lines {printing}: use logging, or the progress callback"


@pytest.mark.parametrize("file", [file for file in files() if not file.startswith(FAMILIES_ALLOWED)])
def test_only_architectures_names_model_families(file: str) -> None:
    named = [f"{file}:{line}: {word!r}" for line, word in words(tree(file)) if FAMILY.search(word)]
    assert not named, "what differs between families belongs into architectures.py"


def words(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of each name and each string that is neither a docstring nor a paper's title (`source=`)."""
    docstrings = {node.value for node in ast.walk(module) if isinstance(node, ast.Expr)}
    docstrings |= {
        node.value for node in ast.walk(module) if isinstance(node, ast.keyword) and node.arg == "source"
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.alias)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.lineno, node.value


@pytest.mark.parametrize("file", files())
def test_nothing_is_pickled(file: str) -> None:
    forbidden = {"pickle", "cPickle", "dill", "joblib", "torch.load", "torch.save"}
    used = {dotted(node) for node in ast.walk(tree(file)) if isinstance(node, ast.Attribute)}
    used |= {
        alias.name for node in ast.walk(tree(file)) if isinstance(node, ast.Import) for alias in node.names
    }
    used |= {
        name
        for node in ast.walk(tree(file))
        if isinstance(node, ast.ImportFrom)
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        if name is not None
    }
    pickled = [
        node.lineno
        for node in ast.walk(tree(file))
        if isinstance(node, ast.keyword)
        and node.arg == "allow_pickle"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert not used & forbidden
    assert not pickled, f"{file} allows pickle in lines {pickled}"


def dotted(node: ast.expr) -> str:
    """`torch.load` from its tree; what is not a plain chain of names ends in `?`."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


@pytest.mark.parametrize("file", files())
def test_nothing_guesses_by_attribute_or_passes_keywords_through(file: str) -> None:
    asking = [
        node.lineno for node in ast.walk(tree(file)) if isinstance(node, ast.Name) and node.id == "hasattr"
    ]
    functions = [node for node in ast.walk(tree(file)) if isinstance(node, (ast.FunctionDef, ast.Lambda))]
    passing = [function.lineno for function in functions if passes_keywords_through(function)]
    assert not asking, f"{file}: hasattr in lines {asking}"
    assert not passing, f"{file}: **keywords handed on in lines {passing}"


def passes_keywords_through(function: ast.FunctionDef | ast.Lambda) -> bool:
    """Whether the function takes `**anything` and gives it to another one."""
    kwarg = function.args.kwarg
    handed_on = (
        node.value for node in ast.walk(function) if isinstance(node, ast.keyword) and node.arg is None
    )
    return kwarg is not None and any(
        isinstance(value, ast.Name) and value.id == kwarg.arg for value in handed_on
    )
