"""`errata models`: the families of models that can be edited."""

from __future__ import annotations

from errata.architectures import ARCHITECTURES, Architecture
from errata.cli import options
from errata.cli.tables import table
from errata.cli.terminal import session

EPILOG = options.examples("errata models", "errata models --json | jq '.[][].model_type'")


def models(seed: options.Seed = 0, quiet: options.Quiet = False, as_json: options.Json = False) -> None:
    """List the model families that Errata knows, by the model_type in their config.json."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        made = table("Family", "Block runs", "Blocks", "FFN output", "Attention output", "Post-norm")
        for row in ARCHITECTURES.values():
            made.add_row(
                row.model_type,
                _order(row),
                row.blocks,
                row.ffn_output,
                row.attention_output,
                "yes" if row.post_norm else "",
            )
        terminal.show(made)
        terminal.show(
            "Paths are within the model (blocks) and within block N (outputs): transformer.h.N.mlp.c_proj.\n"
            "Sequential: the FFN reads what the attention has written; parallel: both read the block's input.\n"
            "Post-norm: the FFN's output is normalised before it is added; memit refuses such a model, pmet edits it.\n"
            "'almanac' is the model that ships with Errata. Another family is one row: docs/add-a-model.md."
        )
        terminal.result({"families": [_row(row) for row in ARCHITECTURES.values()]})


def _order(row: Architecture) -> str:
    if row.parallel_flag is not None:
        return "by config"
    return "parallel" if row.parallel else "sequential"


def _row(row: Architecture) -> dict[str, object]:
    return {
        "model_type": row.model_type,
        "parallel": row.parallel if row.parallel_flag is None else None,
        "parallel_flag": row.parallel_flag,
        "post_norm": row.post_norm,
        "blocks": row.blocks,
        "ffn_output": row.ffn_output,
        "attention_output": row.attention_output,
    }
