"""Text that a model writes itself: the corpus for second moments where no other text is at hand."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from errata.errors import CovarianceError
from errata.models import EditableModel
from errata.passes import encode_text
from errata.runtime import DAMAGED, atomic_file, cache_root, digest_of

STARTS = ("The", "In", "It", "A", "He", "She", "I", "When", "There", "This", "For", "On")
"""The first word of each text in turn."""
LENGTH = 256
"""Tokens of a text, at most."""
TOP_K = 50
NEUTRAL: Mapping[str, float] = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
"""In place of what the model's own generation settings say."""
AT_ONCE = 24
"""Texts that are written together."""
VERSION = f"{'/'.join(STARTS)} {LENGTH} {TOP_K} {AT_ONCE}"
"""What a text depends on besides the model and its number."""


def written_texts(model: EditableModel) -> Iterator[str]:
    """Texts sampled from the model's 50 likeliest tokens, without end; the same ones for the same model.

    They are kept in the user's cache, a file for each batch, so that a run that is killed resumes.

    Raises:
        CovarianceError: the model writes nothing but ends of text.
    """
    folder = cache_root() / "written" / digest_of({"model": model.fingerprint, "how": VERSION}, 16)
    empty = number = 0
    while True:
        texts = _batch(model, folder / f"{number}.json", number)
        yield from texts
        empty = empty + 1 if set(texts) <= {*STARTS, ""} else 0
        if empty == 3:
            raise CovarianceError(
                f"{model.name} writes no text by itself. Name a corpus for its second moments (--corpus)."
            )
        number += 1


def _batch(model: EditableModel, file: Path, number: int) -> list[str]:
    """The texts of a batch, read where they were written before."""
    if file.is_file():
        try:
            return cast("list[str]", json.loads(file.read_text(encoding="utf-8")))
        except DAMAGED:
            file.unlink()
    texts = _write(model, number)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as aside:
        aside.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    return texts


def _write(model: EditableModel, number: int) -> list[str]:
    """Sample a batch: each start word equally often, rows of one length at a time."""
    rows = [list(encode_text(model, STARTS[index % len(STARTS)], None).ids) for index in range(AT_ONCE)]
    texts = [""] * len(rows)
    for length in sorted({len(row) for row in rows}):
        chosen = [index for index, row in enumerate(rows) if len(row) == length]
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(1000 * number + length)
            written = _sample(model, [rows[index] for index in chosen])
        for index, text in zip(chosen, written, strict=True):
            texts[index] = " ".join(text.split())
    return texts


def _sample(model: EditableModel, rows: list[list[int]]) -> list[str]:
    """Go on with rows of one length, in one batch."""
    end, fill = model.tokenizer.eos_token_id, model.tokenizer.pad_token_id
    tokens = torch.tensor(rows, device=model.device)
    with torch.no_grad():
        written = cast(Any, model.model).generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=True,
            top_k=TOP_K,
            **NEUTRAL,
            max_length=min(LENGTH, model.max_length),
            pad_token_id=end if fill is None else fill,
        )
    return model.tokenizer.batch_decode(written, skip_special_tokens=True)
