"""Facts that most language models know, and plain texts: what calibration uses where no file of facts is named."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from errata.facts import Fact

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path(__file__).parent / "familiar.toml"


def familiar_facts(seed: int = 0) -> list[Fact]:
    """Every fact of the set; the seed chooses each one's new target among the other objects of its relation."""
    return [
        _fact(relation, subject, seed) for relation in _content()["relation"] for subject in relation["facts"]
    ]


def plain_texts() -> tuple[str, ...]:
    """Texts of everyday English, whose perplexity shows what an edit does to everything else."""
    return tuple(_content()["texts"])


def _fact(relation: Mapping[str, Any], subject: str, seed: int) -> Fact:
    name: str = relation["name"]
    objects: Mapping[str, str] = relation["facts"]
    true = objects[subject]
    others = sorted(set(objects.values()) - {true})
    return Fact(
        relation["prompt"],
        subject,
        random.Random(f"target/{seed}/{name}/{subject}").choice(others),
        true,
        paraphrase_prompts=relation["paraphrases"],
        relation_id=name,
    )


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))
