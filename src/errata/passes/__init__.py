"""How a model is run: facts as rows of tokens, batches by length, contexts, passes resumed at the edited block."""

from errata.passes.contexts import SHORT_AND_SHORTER, check_contexts, sample_contexts
from errata.passes.continuing import next_logits
from errata.passes.memory import ENOUGH, ENOUGH_ELSEWHERE, MOST, Held, bytes_held, facts_at_once
from errata.passes.prompts import (
    PASS_TOKENS,
    PASS_TOKENS_ELSEWHERE,
    TOKENS_IN_CACHE,
    EncodedRow,
    EncodedText,
    Lookup,
    PromptBatch,
    Row,
    batch_rows,
    by_length,
    encode_rows,
    encode_text,
    kl_rows,
    like_lengths,
    neighbor_rows,
    pad,
    preserve_rows,
    rewrite_rows,
    wording_rows,
)
from errata.passes.resume import ChangesOf, Part, Resumed
from errata.passes.row_batches import RowBatch, batches_of
from errata.passes.shelf import BUDGET, Shelf, budget_on
from errata.passes.side_by_side import side_by_side, workers_for
from errata.passes.streams import Streams, Wanted

__all__ = [
    "BUDGET",
    "ENOUGH",
    "ENOUGH_ELSEWHERE",
    "MOST",
    "PASS_TOKENS",
    "PASS_TOKENS_ELSEWHERE",
    "SHORT_AND_SHORTER",
    "TOKENS_IN_CACHE",
    "ChangesOf",
    "EncodedRow",
    "EncodedText",
    "Held",
    "Lookup",
    "Part",
    "PromptBatch",
    "Resumed",
    "Row",
    "RowBatch",
    "Shelf",
    "Streams",
    "Wanted",
    "batch_rows",
    "batches_of",
    "budget_on",
    "by_length",
    "bytes_held",
    "check_contexts",
    "encode_rows",
    "encode_text",
    "facts_at_once",
    "kl_rows",
    "like_lengths",
    "neighbor_rows",
    "next_logits",
    "pad",
    "preserve_rows",
    "rewrite_rows",
    "sample_contexts",
    "side_by_side",
    "wording_rows",
    "workers_for",
]
