"""Almanac, the model that ships with Errata: where it lies, the facts it knows, and the text it has read."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from errata.almanac.corpus import corpus_texts
    from errata.almanac.world import training_facts, world_facts

__all__ = ["almanac_path", "corpus_texts", "training_facts", "world_facts"]

_HOMES = {
    "corpus_texts": "errata.almanac.corpus",
    "training_facts": "errata.almanac.world",
    "world_facts": "errata.almanac.world",
}


def almanac_path() -> Path:
    """The folder with Almanac's weights and tokenizer, as `from_pretrained` reads it."""
    return Path(__file__).parent / "model"


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'errata.almanac' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
