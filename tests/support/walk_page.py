"""docs/families.md, from the table of families."""

from collections.abc import Mapping

from errata.models import FamilyRow

HEAD = """# Model families

Every model type that transformers can load as a causal language model, and what Errata makes of it. The table is what
`tests/models/test_walk.py` finds: for each type it builds a tiny model from the type's default configuration, loads it
as a checkpoint is loaded, edits it with PMET and, where the value may stand at the block, with MEMIT, computes the same
edit once more in whole passes with an explicit inverse, compares the two, and compares what the edited model says
with what the unedited one says when the change is added by hooks. `errata models` prints the same table.

{edited} of {all} types are edited, {refused} are refused with the reason below. A tiny model with random weights
says that the edit of a family is computed right. It does not say how well its real models hold facts: that is
measured per model (docs/results.md).

Families with a row in `ARCHITECTURES` are marked *row*. The records of all others are derived from the model's modules.
Both are measured whenever a model is loaded, with a few passes over eight tokens, and refused where they do not hold
([decision 0013](decisions/0013-measured-records.md)).

- **Value at**: MEMIT, AlphaEdit and two_site optimize the block's output. Where the FFN's output is normalized or gated
  on its way there, a value has to stand at the down projection's own output, as PMET's does.
- **Factor**: what the down projection's output is multiplied by before it is added. Updates are divided by it.
- **Some blocks**: only some blocks have a dense FFN or a shared expert; the others refuse by number.
- **Whole passes**: the model cannot be resumed at a block and a token (state-space layers, keys shared between blocks).
  Edits are exact and take longer; `errata locate` needs to enter blocks and may refuse.
- **As decoder**: edited where the configuration says `is_decoder`, refused where it does not.

Mixtures of experts are edited where each token passes a dense FFN or a shared expert. Routed experts are not written:
a token's weights would depend on the router, and the keys of one expert are those of the tokens that chose it.

## Edited

| model type | blocks | down projection | attention output | runs | value at | notes |
|---|---|---|---|---|---|---|
"""


def page_of(rows: Mapping[str, FamilyRow]) -> str:
    """The whole page."""
    edited = {name: row for name, row in rows.items() if row["edited"]}
    refused = {name: row for name, row in rows.items() if not row["edited"]}
    lines = [_edited(name, row) for name, row in edited.items()]
    lines += ["", "## Refused", "", "| model type | reason |", "|---|---|"]
    lines += [f"| {name} | {row['reason']} |" for name, row in refused.items()]
    counts = {"edited": len(edited), "all": len(rows), "refused": len(refused)}
    return HEAD.format(**counts) + "\n".join(lines) + "\n"


def _edited(name: str, row: FamilyRow) -> str:
    notes = [
        word
        for word, there in {
            "row": not row["derived"],
            "as decoder": row["decoder"],
            "some blocks": row["some_blocks"],
            "whole passes": row["whole_passes"],
            f"factor {row['factor']}": row["factor"] is not None,
        }.items()
        if there
    ]
    paths = [", ".join(f"`{path}`" for path in row[key]) for key in ("ffn_outputs", "attention_outputs")]
    cells = [name, f"`{row['blocks']}`", *paths, row["order"], row["value_at"], ", ".join(notes)]
    return f"| {' | '.join(cells)} |"
