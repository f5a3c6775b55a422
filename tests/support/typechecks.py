"""Types are checked while the tests run: importing this module sees to it, and must come before any of Errata.

Functions with shapes in their signatures are checked by jaxtyping with beartype, all others by beartype alone: binding
the arguments for jaxtyping costs many times what a small function does. jaxtyping also takes the modules that import
names for type checkers only, which beartype alone cannot resolve.

A function inside a function is made anew whenever the outer one runs, and jaxtyping would write and compile its checks
anew each time: that was more than half of the tests' time. Here they are made once for the code of such a function.
"""

import functools
import inspect
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf
from beartype.claw import beartype_packages
from jaxtyping import install_import_hook


def modules() -> tuple[list[str], list[str]]:
    """The modules of Errata that jaxtyping checks, and the others."""
    spec = find_spec("errata")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    shaped: list[str] = []
    plain: list[str] = []
    for file in sorted(root.rglob("*.py")):
        if file.name not in ("__init__.py", "__main__.py"):
            name = ".".join(("errata", *file.relative_to(root).with_suffix("").parts))
            text = file.read_text(encoding="utf-8")
            (shaped if "jaxtyping" in text or "TYPE_CHECKING" in text else plain).append(name)
    return shaped, plain


class _Called(threading.local):
    """The function whose arguments are being checked."""

    function: Callable[..., Any]


CALLED = _Called()
CHECKS: dict[CodeType, Callable[..., Any]] = {}
"""By the code of an inner function: the checks of its signature around a call of `CALLED.function`."""
DECORATE: Callable[..., Any] = jaxtyping.jaxtyped


def stand_in(function: FunctionType) -> Callable[..., Any]:
    """A function with the signature and the globals of that one, which calls `CALLED.function`."""
    called = CALLED

    def call(*args: object, **kwargs: object) -> object:
        return called.function(*args, **kwargs)

    other = FunctionType(call.__code__, function.__globals__, function.__name__, None, call.__closure__)
    functools.update_wrapper(other, function)
    del other.__wrapped__  # what the first one has around it is not kept alive
    other.__signature__ = inspect.signature(function)
    return other


def jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """`jaxtyping.jaxtyped`, with the checks of an inner function made once."""
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not isinstance(function, FunctionType) or "<locals>" not in function.__qualname__:
        return DECORATE(function, typechecker=typechecker)
    code = function.__code__
    if code not in CHECKS:
        CHECKS[code] = DECORATE(stand_in(function), typechecker=typechecker)
    checks = CHECKS[code]

    @functools.wraps(function)
    def checked(*args: object, **kwargs: object) -> object:
        before = getattr(CALLED, "function", None)
        CALLED.function = function
        try:
            return checks(*args, **kwargs)
        finally:
            CALLED.function = before

    return checked


SHAPED, PLAIN = modules()
jaxtyping.jaxtyped = jaxtyped  # what the import hook decorates with
install_import_hook(SHAPED, "beartype.beartype")
beartype_packages(PLAIN, conf=BeartypeConf(claw_is_pep526=False, violation_type=TypeError))
