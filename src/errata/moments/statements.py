"""Short statements about subjects of many kinds, which ship with Errata: `statements` as a corpus."""

import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path(__file__).parent / "statements.toml"
"""Templates and names, by kind."""


def short_statements() -> Iterator[str]:
    """Every name in every template of its kind, in an order that looks random and is always the same."""
    return iter(_ordered())


@cache
def _ordered() -> tuple[str, ...]:
    content: dict[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8"))
    texts = [
        template.replace("{}", name, 1)
        for kind in content["kind"]
        for name in kind["names"]
        for template in kind["templates"]
    ]
    random.Random("statements").shuffle(texts)
    return tuple(texts)
