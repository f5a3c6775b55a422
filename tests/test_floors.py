"""The house keeps its order: who may import whom, and what may stand where. Read with `ast`, so nothing is run."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "errata"
LONGEST_FILE = 400

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("runtime",),
    ("facts", "settings"),
    ("results",),
    ("models",),
    ("passes",),
    ("moments", "values", "edits"),
    ("solve", "delivery"),
    ("methods.base",),
    ("methods.mend",),
    ("methods",),
    ("evaluation.harness",),
    ("evaluation",),
    ("strategies", "analysis", "almanac"),
    ("planning",),
    ("calibrate",),
    ("experiments",),
    ("report",),
    ("web",),
    ("cli",),
    ("__main__",),
)
"""The rooms of each floor, lowest first: a room imports from lower floors only."""
OPEN = {"runtime.processes", "methods.base", "web.serving"}
"""Files that other rooms may import by name: their room's face would load too much, or is loaded by them."""
WITHOUT_TORCH = ("errors", "runtime", "facts", "settings", "results")

FAMILY = re.compile(r"gpt|neox|llama|mistral|qwen|gemma|olmo", re.IGNORECASE)
FAMILIES_ALLOWED = ("models/architectures.py", "almanac/")
"""Almanac's room may say what the embedded model is."""


def files() -> list[str]:
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


ROOMS = [room for floor in FLOORS for room in floor if room not in ("errors", "methods.base", "__main__")]


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def module_of(file: str) -> str:
    """`facts.records` for `facts/records.py`, `facts` for `facts/__init__.py`."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room_of(module: str) -> str:
    """The room that a module of the package belongs to: the longest name in FLOORS that it begins with."""
    rooms = [room for floor in FLOORS for room in floor if f"{module}.".startswith(f"{room}.")]
    assert rooms, f"{module} is in no room: give it a floor in FLOORS"
    return max(rooms, key=len)


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def imports(file: str) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of each import from the package; `from errata import x` counts as module `x`."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the import in full, from errata..."
            if node.module == "errata":
                yield from ((node.lineno, alias.name, "") for alias in node.names)
            elif node.module is not None and node.module.startswith("errata."):
                module = node.module.removeprefix("errata.")
                yield from ((node.lineno, module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("errata."):
                    yield node.lineno, alias.name.removeprefix("errata."), ""


@cache
def face(room: str) -> frozenset[str]:
    """The names in the `__all__` of a room."""
    path = f"{room.replace('.', '/')}/__init__.py"
    if not (PACKAGE / path).is_file():
        return frozenset()
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


@cache
def public_names() -> frozenset[str]:
    """What `import errata` offers, in whatever room it lives."""
    return next(
        frozenset(ast.literal_eval(node.value))
        for node in tree("__init__.py").body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    )


def climbs(room: str, other: str) -> bool:
    """Whether an import of `other` in `room` would go up or sideways."""
    return other != room and floor_of(other) >= floor_of(room)


def reaches_inside(room: str, module: str, name: str) -> bool:
    """Whether an import takes what is private to another room."""
    other = room_of(module)
    if other in (room, "errors"):
        return False
    return not ((module == other and name in face(other)) or module in OPEN or f"{module}.{name}" in OPEN)


def package_imports(file: str) -> Iterator[tuple[int, str, str]]:
    """The imports of a file from rooms, without those of the package's own public names."""
    for line, module, name in imports(file):
        if not module.startswith("__") and (name or module not in public_names() - {"errors"}):
            yield line, module, name


@pytest.mark.parametrize("file", [file for file in files() if file != "__init__.py"])
def test_a_file_imports_from_lower_floors_and_from_faces_only(file: str) -> None:
    room = room_of(module_of(file))
    wrong = [
        f"{file}:{line} imports {module} {name}"
        for line, module, name in package_imports(file)
        if climbs(room, room_of(module)) or reaches_inside(room, module, name)
    ]
    assert not wrong


@pytest.mark.parametrize("room", ROOMS)
def test_the_files_of_a_room_do_not_import_each_other_in_a_circle(room: str) -> None:
    inside = {
        module_of(file): file
        for file in files()
        if file != "__init__.py" and room_of(module_of(file)) == room
    }
    arrows = {
        module: {
            target
            for _, other, name in imports(file)
            for target in (other, f"{other}.{name}")
            if target in inside and target != room and target != module
        }
        for module, file in inside.items()
        if module != room
    }
    TopologicalSorter(arrows).prepare()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_is_inside(room: str) -> None:
    inside = tree(f"{room.replace('.', '/')}/__init__.py")
    assert len((ast.get_docstring(inside) or "").split()) >= 6


def test_the_rule_sees_what_it_forbids() -> None:
    assert not climbs("values", "passes")
    assert climbs("values", "solve")
    assert climbs("values", "moments")
    assert climbs("facts", "results")
    assert climbs("models", "passes")
    assert not reaches_inside("solve", "moments", "Factors")
    assert reaches_inside("solve", "moments.factors", "Factors")
    assert reaches_inside("solve", "moments", "factors")
    assert not reaches_inside("moments", "moments.factors", "Factors")


def test_the_lower_rooms_load_no_torch() -> None:
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
    """Whether the function takes `**anything` and gives it to another one; typed keywords (`Unpack`) are checked."""
    kwarg = function.args.kwarg
    handed_on = (
        node.value for node in ast.walk(function) if isinstance(node, ast.keyword) and node.arg is None
    )
    return (
        kwarg is not None
        and not names_its_keywords(kwarg)
        and any(isinstance(value, ast.Name) and value.id == kwarg.arg for value in handed_on)
    )


def names_its_keywords(kwarg: ast.arg) -> bool:
    """Whether `**words` are those of a TypedDict: `**words: Unpack[Words]`."""
    return isinstance(kwarg.annotation, ast.Subscript) and dotted(kwarg.annotation.value) == "Unpack"


@pytest.mark.parametrize(
    ("function", "passes"),
    [
        ("def f(**words): g(**words)", True),
        ("def f(**words: object): g(**words)", True),
        ("def f(**words: list[int]): g(**words)", True),
        ("def f(**words: Unpack[Words]): g(**words)", False),
        ("def f(**words): g(words)", False),
        ("def f(words): g(**words)", False),
    ],
)
def test_the_rule_knows_keywords_that_are_named(function: str, passes: bool) -> None:
    (parsed,) = ast.parse(function).body
    assert isinstance(parsed, ast.FunctionDef)
    assert passes_keywords_through(parsed) is passes


# --- the size of functions -------------------------------------------------------------------------

LONGEST_FUNCTION = 40
"""Lines of a function, its signature and docstring among them."""
LONGEST_COMMAND = 25
"""Lines of a command's body: a command has its options in its signature, and their help."""
MOST_PARAMETERS = 7
RECORDS = {"facts/fact.py: __init__"}
"""The constructor of a record takes the record's fields, however many."""


@cache
def commands() -> frozenset[str]:
    """The functions that `cli/app.py` makes commands, as `cli/edit.py: edit`, and its own root."""
    registered = {
        call.args[0]
        for call in ast.walk(tree("cli/app.py"))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Call)
        and dotted(call.func.func).endswith(".command")
    }
    assert registered, "cli/app.py registers no commands any more: read where they are"
    return frozenset(
        f"cli/{module}.py: {name}" for module, _, name in (dotted(one).partition(".") for one in registered)
    )


def functions_in(module: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def faults_of_size(name: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """What is too large about a function of that name (`file: function`), in words."""
    assert function.end_lineno is not None
    if name in commands():
        statements = function.body[1:] if ast.get_docstring(function) else function.body
        lines = function.end_lineno - statements[0].lineno + 1
        return [f"{name}: the body has {lines} lines"] if lines > LONGEST_COMMAND else []
    lines = function.end_lineno - function.lineno + 1
    too_long = [f"{name} has {lines} lines"] if lines > LONGEST_FUNCTION else []
    arguments = function.args
    named = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    parameters = len(named) - (named[:1] in (["self"], ["cls"]))
    return too_long + ([f"{name} has {parameters} parameters"] if parameters > MOST_PARAMETERS else [])


@pytest.mark.parametrize("file", files())
def test_a_function_is_short_and_takes_few_parameters(file: str) -> None:
    faults = [
        fault
        for function in functions_in(tree(file))
        if (name := f"{file}: {function.name}") not in RECORDS
        for fault in faults_of_size(name, function)
    ]
    assert not faults, "a function is made of several, or some of its parameters are one thing with a name"


@pytest.mark.parametrize(
    ("name", "function", "faults"),
    [
        ("x.py: f", "def f(self, a, b, c, d, e, f, g): pass", 0),
        ("x.py: f", "def f(a, b, c, d, *, e, f, g, h): pass", 1),
        ("x.py: f", "def f(a, b, c, d, e, f, g, **words): pass", 0),
        ("x.py: f", "def f():\n" + 39 * "    pass\n", 0),
        ("x.py: f", "def f():\n" + 40 * "    pass\n", 1),
        ("cli/show.py: show", "def show(a, b, c, d, e, f, g, h):\n" + 25 * "    pass\n", 0),
        ("cli/show.py: show", "def show():\n    'Help.'\n" + 25 * "    pass\n", 0),
        ("cli/show.py: show", "def show():\n" + 26 * "    pass\n", 1),
    ],
)
def test_the_rule_measures_functions(name: str, function: str, faults: int) -> None:
    (one,) = functions_in(ast.parse(function))
    assert len(faults_of_size(name, one)) == faults


# --- the weight ledger -----------------------------------------------------------------------------

OWN_WEIGHTS = {
    "models/ledger.py": "the one place that writes into a model's weights",
    "models/offload.py": "brings a weight into memory, as it is",
    "almanac/checkpoints.py": "the weights of the embedded model while it is trained from nothing",
    "methods/checkpoints.py": "copies of weights that are trained beside the model",
    "methods/mend/store.py": "the editor's own networks",
}
"""Files that may write into parameters, and whose these are."""
WEIGHT = {
    "weight",
    "weights",
    "matrix",
    "bias",
    "parameter",
    "get_parameter",
    "parameters",
    "named_parameters",
}
REPLACING = {"copy_", "set_", "swap_", "load_state_dict", "set_module_tensor_to_device", "setattr"}


@pytest.mark.parametrize("file", [file for file in files() if file not in OWN_WEIGHTS])
def test_only_the_ledger_writes_into_a_models_weights(file: str) -> None:
    lines = sorted(weight_writes(tree(file)))
    assert not lines, (
        f"{file} writes into weights in lines {lines}: ask `model.ledger`, which can put them back"
    )


@pytest.mark.parametrize("file", OWN_WEIGHTS)
def test_no_file_may_write_weights_that_does_not(file: str) -> None:
    assert weight_writes(tree(file))


def weight_writes(module: ast.AST) -> set[int]:
    """The lines that write into a weight in place, or put another tensor where a weight is."""
    lines: set[int] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            name = dotted(node.func).rpartition(".")[2]
            in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
            receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
            outs = [keyword.value for keyword in node.keywords if keyword.arg == "out"]
            written = [receiver] if in_place and receiver is not None else []
            if name in REPLACING or any(is_weight(one) for one in (*written, *outs)):
                lines.add(node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr == "data" and is_weight(node.value):
            lines.add(node.lineno)
        elif isinstance(node, (ast.Assign, ast.AugAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                inside = target.value if isinstance(target, ast.Subscript) else target
                own = isinstance(target, ast.Attribute) and dotted(target).startswith("self.")
                if (
                    isinstance(inside, ast.Attribute)
                    and inside.attr != "grad"
                    and is_weight(inside)
                    and not own
                ):
                    lines.add(node.lineno)
    return lines


def is_weight(node: ast.expr) -> bool:
    """Whether an expression reads a parameter: `site.weight`, `weight[0]`, `model.get_parameter(name)`."""
    return any(
        (isinstance(part, ast.Attribute) and part.attr in WEIGHT)
        or (isinstance(part, ast.Name) and part.id in WEIGHT - {"matrix"})
        for part in ast.walk(node)
    )


@pytest.mark.parametrize(
    "line",
    [
        "site.weight.copy_(values)",
        "backup.copy_(values)",
        "site.matrix.add_(change)",
        "model.get_parameter(name).mul_(2)",
        "weight.data.zero_()",
        "site.weight.data = values",
        "site.weight[0] = 1",
        "site.matrix[:, 0] += 1",
        "site.weight += change",
        "module.weight = nn.Parameter(values)",
        "setattr(module, name, values)",
        "torch.add(a, b, out=site.weight)",
        "for weight in model.parameters(): weight.clamp_(-1, 1)",
    ],
)
def test_the_rule_sees_a_write_into_a_weight(line: str) -> None:
    assert weight_writes(ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "model.ledger.write(site, site.weight + change)",
        "site.weight.requires_grad_(True)",
        "inside.diagonal().add_(1)",
        "matrix = site.matrix.clone()",
        "rows = cell.data",
        "self.weight = 3.0",
    ],
)
def test_the_rule_lets_pass_what_writes_into_no_weight(line: str) -> None:
    assert not weight_writes(ast.parse(line))
