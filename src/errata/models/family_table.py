"""What became of every model type of transformers' causal-LM mapping when a tiny model of it was edited.

`families.json` is what `tests/models/test_walk.py` finds; `errata models` and docs/families.md print it.
"""

import json
from functools import cache
from pathlib import Path
from typing import TypedDict, cast

FAMILY_TABLE = Path(__file__).parent / "families.json"


class FamilyRow(TypedDict, total=False):
    """One model type; without `edited`, only `reason` is there."""

    edited: bool
    reason: str
    derived: bool
    """Whether its record is derived from the model's modules, or a row of `ARCHITECTURES`."""
    decoder: bool
    """Whether it is edited with `is_decoder` set, which its configuration leaves out."""
    blocks: str
    ffn_outputs: list[str]
    """Within a block; several where blocks differ."""
    attention_outputs: list[str]
    order: str
    value_at: str
    """Where a value of MEMIT's kind may stand."""
    factor: float | None
    """What the down projection's output is multiplied by on its way to the block's output, where that is not 1."""
    some_blocks: bool
    """Whether other blocks cannot be edited."""
    whole_passes: bool
    """Whether a pass cannot be resumed at a block and a token, so that an edit takes longer."""


@cache
def family_rows() -> dict[str, FamilyRow]:
    """The table by model type, in transformers' order."""
    return cast("dict[str, FamilyRow]", json.loads(FAMILY_TABLE.read_text("utf-8")))
