"""Tokenizers of many kinds, tiny, and where the tokens of a fact are by another way of counting."""

import json
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from errata.facts import join_of
from errata.facts.fact import Fact
from errata.models.architectures import architecture_for
from errata.models.model import EditableModel
from errata.passes.prompts import (
    EncodedRow,
    Row,
    encode_rows,
    rewrite_rows,
)
from families import tiny_tokenizer

GPT2 = Path(__file__).parents[3] / "shared" / "tokenizers" / "gpt2"


CONTEXTS = ("", "The quiet river.", "\u00c0 l'ombre, \u4e2d\u6587\u3002.")


BOS = {"SpecialToken": {"id": "<s>", "type_id": 0}}


TEXT = {"Sequence": {"id": "A", "type_id": 0}}


EOS = {"SpecialToken": {"id": "</s>", "type_id": 0}}


SPACE_TO_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


PREPEND_MARK = {"type": "Prepend", "prepend": "\u2581"}


def special_ids(base: str) -> list[int]:
    """The ids of <s> and </s>."""
    return [1, 2] if base == "byte_level" else [2, 3]


def adding(base: str, *parts: dict[str, object]) -> tuple[str, object]:
    """A post-processor that puts special tokens around the text."""
    special = {
        token: {"id": token, "ids": [number], "tokens": [token]}
        for token, number in zip(("<s>", "</s>"), special_ids(base), strict=True)
    }
    processor = {
        "type": "TemplateProcessing",
        "single": parts,
        "pair": [*parts, TEXT],
        "special_tokens": special,
    }
    return ("post_processor", processor)


@dataclass(frozen=True)
class Kind:
    """A tokenizer of `families.py`, with parts exchanged for those of well-known ones."""

    base: str
    changes: tuple[tuple[str, object], ...] = ()


KINDS = {
    "words with their space": Kind("byte_level"),
    "... whose offsets leave out the space": Kind(
        "byte_level",
        (
            (
                "post_processor",
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ),
        ),
    ),
    "... that composes accents": Kind("byte_level", (("normalizer", {"type": "NFC"}),)),
    "... that adds EOS": Kind("byte_level", (adding("byte_level", TEXT, EOS),)),
    "marks for spaces, BOS": Kind("sentencepiece"),
    "... and EOS": Kind("sentencepiece", (adding("sentencepiece", BOS, TEXT, EOS),)),
    "... by a normalizer, one word to BPE": Kind(
        "sentencepiece", (("normalizer", SPACE_TO_MARK), ("pre_tokenizer", None))
    ),
    "... prepended by a normalizer": Kind(
        "sentencepiece",
        (
            ("normalizer", {"type": "Sequence", "normalizers": [PREPEND_MARK, SPACE_TO_MARK]}),
            ("pre_tokenizer", None),
        ),
    ),
}


ALL_KINDS = [
    pytest.param("GPT-2's own", marks=pytest.mark.skipif(not GPT2.is_dir(), reason=f"no {GPT2}")),
    *KINDS,
]


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    if kind not in KINDS:
        return AutoTokenizer.from_pretrained(GPT2)
    raw = json.loads(tiny_tokenizer(KINDS[kind].base).backend_tokenizer.to_str())
    for name, value in KINDS[kind].changes:
        raw[name] = value
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    assert made.convert_tokens_to_ids(["<s>", "</s>"]) == special_ids(KINDS[kind].base)
    return made


@cache
def model_with(kind: str, length: int = 4096) -> EditableModel:
    """A model that has the tokenizer, and is never run."""
    config = GPT2Config(vocab_size=8, n_embd=4, n_layer=1, n_head=1, n_positions=length)
    return EditableModel(
        GPT2LMHeadModel(config), tokenizer_of(kind), architecture_for("gpt2"), f"model of {kind}"
    )


@cache
def byte_of_letter() -> dict[str, int]:
    """GPT-2 writes a byte as the letter of that number if it can be seen, the others as letters from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {**{chr(byte): byte for byte in seen}, **{chr(256 + i): byte for i, byte in enumerate(hidden)}}


def bytes_of(kind: str, token: str) -> bytes:
    """What a token stands for; nothing for those that the tokenizer adds."""
    tokenizer = tokenizer_of(kind)
    if token in tokenizer.all_special_tokens:
        return b""
    if kind not in KINDS or KINDS[kind].base == "byte_level":
        return bytes(byte_of_letter()[letter] for letter in token)
    if len(token) == 6 and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()


@dataclass(frozen=True)
class Expected:
    """Where things are in a text, found by counting."""

    ids: list[int]
    lookup: int
    first: int
    """The target's first token."""
    end: int
    """One behind its last."""


def expected(kind: str, row: Row) -> Expected:
    tokenizer = tokenizer_of(kind)
    assert row.target is not None
    before = row.prompt[: row.subject_span[0]]
    between = join_of(row.prompt, row.target, row.join)
    parts = [before, row.subject, row.prompt[row.subject_span[1] :], between + row.target]
    if "composes" in kind:
        parts = [unicodedata.normalize("NFC", part) for part in parts]
    text = "".join(parts).encode()
    ids = tokenizer("".join([row.prompt, between, row.target]))["input_ids"]
    pieces = [bytes_of(kind, token) for token in tokenizer.convert_ids_to_tokens(ids)]
    joined = b"".join(pieces)
    lead = len(joined) - len(text)
    assert joined == b" " * lead + text
    assert lead in (0, 1)
    ends = list(accumulate(map(len, pieces)))
    subject_ends = lead + len("".join(parts[:2]).encode())
    prompt_ends = lead + len("".join(parts[:3]).encode())
    return Expected(
        ids=ids,
        lookup=next(i for i, end in enumerate(ends) if end >= subject_ends),
        # A token that begins with the space belongs to the target, also where it is nothing but that space.
        first=next(i for i, end in enumerate(ends) if end > prompt_ends),
        end=next(i + 1 for i, end in enumerate(ends) if end == len(joined)),
    )


def encode(kind: str, fact: Fact, context: str = "") -> EncodedRow:
    (row,) = rewrite_rows([fact], [context])
    (encoded,) = encode_rows(model_with(kind), [row])
    return encoded


def check(kind: str, fact: Fact, context: str = "") -> EncodedRow:
    """Every position of a row is where counting finds it; the row is returned for more questions."""
    encoded = encode(kind, fact, context)
    text, want = encoded.text, expected(kind, encoded.row)
    assert encoded.lookup == want.lookup
    assert list(text.target) == want.ids[want.first : want.end]
    # The inputs are the joint text less its last token, and the outputs at `predicted_at` are to be the target.
    assert list(text.ids) == want.ids[: want.end - 1]
    assert [want.ids[at + 1] for at in text.predicted_at] == list(text.target)
    assert text.predicted_at.start == want.first - 1
    assert [*text.ids[: want.first], *text.target] == want.ids[: want.end]
    assert text.predicted_at.stop == len(text.ids)
    decoded = tokenizer_of(kind).decode(text.target).strip()
    assert decoded == (
        unicodedata.normalize("NFC", fact.target_new) if "composes" in kind else fact.target_new
    )
    return encoded
