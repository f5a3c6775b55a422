"""Every model type of transformers' causal-LM mapping: a tiny model of it is edited exactly, or refused with a reason.

The table that `errata models` prints, and docs/families.md, are what this finds. After a change:

    python tests/models/test_walk.py
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from errata.models import ARCHITECTURES, FAMILY_TABLE, family_rows
from walk import TYPES
from walk_outcome import outcome_of
from walk_page import page_of

PAGE = Path(__file__).parents[2] / "docs/families.md"
EDITED_AT_LEAST = 140


@pytest.mark.parametrize("model_type", TYPES)
def test_a_type_is_edited_exactly_or_refused_with_the_reason_in_the_table(model_type: str) -> None:
    found = json.loads(json.dumps(outcome_of(model_type)))
    if not found["edited"]:
        assert len(found["reason"]) > 20
    assert found == family_rows()[model_type]


def test_the_table_has_every_type_and_most_are_edited() -> None:
    rows = family_rows()
    assert tuple(rows) == TYPES
    assert Counter(row["edited"] for row in rows.values())[True] >= EDITED_AT_LEAST
    assert set(ARCHITECTURES) <= {name for name, row in rows.items() if row["edited"] and not row["derived"]}


def test_the_page_is_made_from_the_table() -> None:
    assert PAGE.read_text("utf-8") == page_of(family_rows())


if __name__ == "__main__":
    import transformers

    transformers.logging.set_verbosity_error()
    table = {model_type: outcome_of(model_type) for model_type in TYPES}
    FAMILY_TABLE.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    PAGE.write_text(page_of(table), "utf-8")
