"""How surprised a model is by plain texts."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from errata.errors import SettingsError
from errata.models import EditableModel
from errata.passes import by_length, encode_text, pad
from errata.results import PlainText
from errata.runtime import processes

LOGITS_AT_ONCE = 2**25


def text_perplexity(model: EditableModel, texts: Sequence[str]) -> float:
    """The mean over texts of exp(-(1/N) sum log P), N the text's number of tokens (ME-PPL-50's count, paper 2).

    Texts are cut to the model's context. NaN if the model's output is not a number.

    Raises:
        ValueError: no text has two tokens or more.
    """
    read = measure_texts(model, texts)
    return sum(text.perplexity for text in read) / len(read)


def measure_texts(model: EditableModel, texts: Sequence[str]) -> list[PlainText]:
    """How likely the model finds each text of two tokens or more, in their order, cut to the model's context.

    Raises:
        ValueError: there is none.
    """
    ids = [encode_text(model, text, None).ids for text in texts]
    ids = [row for row in ids if len(row) > 1]
    if not ids:
        raise ValueError(
            f"None of the {len(texts)} texts has two tokens or more, so there is no perplexity. Give longer ones."
        )
    found: dict[int, tuple[int, float]] = {}
    longest = max(len(row) for row in ids)
    at_once = max(1, LOGITS_AT_ONCE // (longest * len(model.tokenizer)))
    own = sorted(processes.share(sorted(range(len(ids)), key=lambda index: len(ids[index]))))
    for places in by_length([len(ids[index]) for index in own], at_once):
        group = [own[place] for place in places]
        tokens = pad([ids[index] for index in group], model)
        rows, positions = tokens.mask[:, 1:].nonzero().unbind(dim=1)
        with torch.no_grad():
            logits = model.logits_at(tokens, rows, positions)
        precise = torch.promote_types(logits.dtype, torch.float32)
        log_p = logits.to(device=tokens.ids.device, dtype=precise).log_softmax(dim=-1)
        said = log_p.gather(1, tokens.ids[rows, positions + 1][:, None])[:, 0].double()
        sums = torch.zeros(len(group), dtype=torch.float64, device=said.device).index_add(0, rows, said)
        counts = tokens.mask.sum(dim=1)
        for row, index in enumerate(group):
            found[index] = int(counts[row]), float(sums[row])
    found = processes.gather_shares(found)
    return [PlainText(*found[index]) for index in range(len(ids))]


def read_texts(path: str | os.PathLike[str]) -> list[str]:
    """The texts of a file: a JSON list of texts or of objects with a `Text` (ME-PPL-50's file), or one text a line.

    Raises:
        SettingsError: there is no such file, or no text in it.
    """
    file = Path(path)
    try:
        content = file.read_text(encoding="utf-8")
        if file.suffix != ".json":
            texts = [line for line in content.splitlines() if line.strip()]
        else:
            value: object = json.loads(content)
            items = cast("list[object]", value if isinstance(value, list) else [])
            texts = [str(cast("dict[str, str]", i)["Text"] if isinstance(i, dict) else i) for i in items]
    except FileNotFoundError:
        raise SettingsError(f"There is no file of texts {file}.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"The texts cannot be read from {file}: {error!r}. Give one a line, or a JSON list of texts or of objects "
            'with a "Text".'
        ) from error
    if not texts:
        raise SettingsError(f"{file} holds no text. Write one a line, or a JSON list.")
    return texts
