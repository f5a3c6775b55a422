"""Types are checked while the tests run: importing this module sees to it, and must come before any of Errata.

Functions with shapes in their signatures are checked by jaxtyping with beartype, all others by beartype alone: binding
the arguments for jaxtyping costs many times what a small function does. jaxtyping also takes the modules that import
names for type checkers only, which beartype alone cannot resolve.
"""

from importlib.util import find_spec
from pathlib import Path

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


SHAPED, PLAIN = modules()
install_import_hook(SHAPED, "beartype.beartype")
beartype_packages(PLAIN, conf=BeartypeConf(claw_is_pep526=False, violation_type=TypeError))
