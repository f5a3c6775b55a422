"""Where the subject ends and what the target is, checked by counting bytes: offsets are not asked again.

Each tokenizer's tokens are turned into the bytes that they stand for. Laid end to end they are the text, so the token
that holds a given byte is found by adding up lengths.
"""

import json
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from errata.errors import EmptyTarget, FactError, PromptTooLong
from errata.facts.fact import Fact
from errata.models.architectures import architecture_for
from errata.models.model import SHORTEST, EditableModel
from errata.passes.prompts import (
    EncodedRow,
    PromptBatch,
    Row,
    batch_rows,
    by_length,
    encode_rows,
    encode_text,
    kl_rows,
    like_lengths,
    pad,
    rewrite_rows,
)
from families import FAMILIES, tiny_model, tiny_tokenizer

GPT2 = Path(__file__).parents[3] / "shared" / "tokenizers" / "gpt2"
CONTEXTS = ("", "The quiet river.", "\u00c0 l'ombre, \u4e2d\u6587\u3002.")


# --- the tokenizers ----------------------------------------------------------------------------------------------


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
every_tokenizer = pytest.mark.parametrize("kind", ALL_KINDS)


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


# --- the other way to find positions -----------------------------------------------------------------------------


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
    parts = [before, row.subject, row.prompt[row.subject_span[1] :], " " + row.target]
    if "composes" in kind:
        parts = [unicodedata.normalize("NFC", part) for part in parts]
    text = "".join(parts).encode()
    ids = tokenizer("".join([row.prompt, " ", row.target]))["input_ids"]
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


# --- properties --------------------------------------------------------------------------------------------------

LETTERS = (
    "abcdeinorst ABKT 0123456789 .,;:!?'\"-()&%/ \u00e9\u00fc\u00f1\u00df\u00f8\u0142\u0130\u0131\u2019 "
    "\u4e2d\u6587\u65e5\u672c\ud55c \U0001f469\U0001f680\U0001f3fd\u200d\ufe0f\U0001f1e9\U0001f1ea "
    "\u0301\u0308\u0327 \u05e9\u05dc\u05d5\u05dd\u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 "
    "\u0e44\u0e17\u0e22 {}"
)
NAMES = st.sampled_from(
    (
        "Orin Vasker",
        "Valdoria",
        "a",
        "Zo\u00eb Fran\u00e7oise",
        "Zoe\u0308",
        "\u674e\u5c0f\u9f99",
        "\u0645\u062d\u0645\u062f \u0639\u0644\u064a",
        "Yahoo!",
        "St. John's Co., Ltd.",
        "\U0001f469\U0001f3fd\u200d\U0001f680",
        "C++",
        "\u2014",
        "Port  Avel",
    )
)
ANYTHING = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
WORDS = st.one_of(NAMES, st.text(LETTERS, min_size=1, max_size=10), ANYTHING)
BEFORE = st.one_of(st.sampled_from(("", "", "The mother tongue of ", "(", "\u00ab ", "of", "\n", " ")), WORDS)
AFTER = st.one_of(
    st.sampled_from(("", " is", "'s mother tongue is", "\u2019s", ", who was born in", ")", "s were", "!")),
    st.text("abc .'s\u4e2d", max_size=6),
)


def usable(*texts: str) -> bool:
    """Not the mark for a space, which stands for two different texts, nor words that are special tokens."""
    joined = "".join(texts)
    return "\u2581" not in joined and "<" not in joined and all(text.strip() for text in texts[:2])


@every_tokenizer
@settings(max_examples=120, deadline=None)
@given(before=BEFORE, subject=WORDS, after=AFTER, target=WORDS, context=st.sampled_from(CONTEXTS))
@example(before="", subject="Orin Vasker", after="", target="the harp", context="")
@example(before="", subject="Vasker", after="'s mother tongue is", target="Velish", context=CONTEXTS[1])
@example(before="Articles on ", subject="Art", after=" are", target="about art", context="")
@example(
    before="",
    subject="\U0001f469\u200d\U0001f680",
    after=" flew to",
    target="\U0001f680",
    context=CONTEXTS[2],
)
@example(before="", subject="Zoe", after="\u0308 is", target="e\u0301", context="")
def test_positions_are_those_that_counting_finds(
    kind: str, before: str, subject: str, after: str, target: str, context: str
) -> None:
    assume(usable(subject, target, before, after))
    assume("{}" not in subject + before + after)
    if "composes" in kind:  # what is composed across the subject's ends is neither inside nor outside
        assume(
            not any(
                unicodedata.combining(text[:1] or " ") for text in (subject.strip(), after, target.strip())
            )
        )
    check(kind, Fact(before + "{}" + after, subject, target), context)


@every_tokenizer
def test_targets_of_one_to_six_tokens(kind: str) -> None:
    text = "the violin and the harp of Kestrel, Old Tarn"
    targets = {text[start:stop] for start in (0, 4, 19) for stop in range(start + 1, start + 20)}
    counts = {len(check(kind, Fact("{} plays the", "Orin Vasker", target)).text.target) for target in targets}
    assert counts >= set(range(1, 7))


@every_tokenizer
@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("{} plays the", "Orin Vasker"),
        ("The instrument of {}", "Orin Vasker"),
        ("The town of {} lies in", "Duskwell near Old Tarn"),
        ("Harpists, harps: the {} is", "harp"),
        ("An anteater is an {} eater", "ant"),
        ("{}'s mother tongue is", "Jonas Whitlock"),
        ("{}\u2019s mother tongue is", "Jonas Whitlocks"),
        ("The search engine {} belongs to", "Yahoo!"),
        ("({}) is in", "Port Avel"),
        ("\u201c{}\u201d was written by", "\u00c9t\u00e9"),
        ("{}\u306f", "\u6771\u4eac"),
    ],
)
def test_the_subject_may_stand_anywhere(kind: str, prompt: str, subject: str) -> None:
    for context in CONTEXTS:
        encoded = check(kind, Fact(prompt, subject, "Velish"), context)
        # The tokens up to the lookup position hold the whole subject, and those before it do not.
        decoded = [
            tokenizer_of(kind).decode(encoded.text.ids[:stop])
            for stop in (encoded.lookup, encoded.lookup + 1)
        ]
        until = encoded.row.prompt[: encoded.row.subject_span[1]]
        assert until in decoded[1]
        assert until not in decoded[0]


def test_a_prefix_of_the_text_gives_the_same_positions_where_words_are_cut() -> None:
    """GPT-2 cuts before each space, so the tokens of the text up to such a place are the first of the whole."""
    for kind in ("words with their space", "marks for spaces, BOS"):
        tokenizer = tokenizer_of(kind)
        fact = Fact("The mother tongue of {} is", "Jonas Whitlock", "Old Tarn near Kestrel")
        encoded = encode(kind, fact, CONTEXTS[1])
        until_subject = len(tokenizer(f"{CONTEXTS[1]} The mother tongue of Jonas Whitlock")["input_ids"])
        prompt = tokenizer(f"{CONTEXTS[1]} The mother tongue of Jonas Whitlock is")["input_ids"]
        whole = tokenizer(f"{CONTEXTS[1]} The mother tongue of Jonas Whitlock is Old Tarn near Kestrel")[
            "input_ids"
        ]
        assert encoded.lookup == until_subject - 1
        assert list(encoded.text.ids) == whole[:-1]
        assert list(encoded.text.target) == whole[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
def test_added_tokens_are_there_once_and_never_predicted(kind: str) -> None:
    fact = Fact("{} plays the", "Orin Vasker", "violin", "harp")
    bos, eos = special_ids(KINDS[kind].base)
    encoded = [encode(kind, fact, context).text for context in CONTEXTS]
    (kl,) = encode_rows(model_with(kind), kl_rows([fact]))
    for text in [*encoded, kl.text]:
        starts = text.ids.count(bos)
        assert starts == ("BOS" in kind or KINDS[kind].base == "sentencepiece")
        assert not starts or text.ids[0] == bos
        assert eos not in text.ids + text.target
        assert bos not in text.target


@every_tokenizer
def test_a_text_without_a_target(kind: str) -> None:
    fact = Fact("{} plays the", "Orin Vasker", "violin")
    model = model_with(kind)
    (kl,) = encode_rows(model, kl_rows([fact]))
    assert kl.row.prompt == "Orin Vasker is a"
    assert kl.text.target == ()
    assert list(kl.text.predicted_at) == []
    assert tokenizer_of(kind).decode(kl.text.ids, skip_special_tokens=True).strip() == "Orin Vasker is a"
    assert kl.lookup == encode(kind, fact).lookup


def test_every_row_of_a_fact_in_order() -> None:
    facts = [Fact("The {} of", "harp", "Velm"), Fact("{} is", "Orin", "old")]
    rows = rewrite_rows(facts, ("", "So.", "Then."))
    assert [(row.fact, row.prompt) for row in rows] == [
        (0, "The harp of"),
        (0, "So. The harp of"),
        (0, "Then. The harp of"),
        (1, "Orin is"),
        (1, "So. Orin is"),
        (1, "Then. Orin is"),
    ]
    assert [row.prompt[slice(*row.subject_span)] for row in rows] == ["harp"] * 3 + ["Orin"] * 3
    assert [(row.fact, row.kind, row.prompt, row.target) for row in kl_rows(facts)] == [
        (0, "kl", "harp is a", None),
        (1, "kl", "Orin is a", None),
    ]


# --- what cannot be used -----------------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_is_refused() -> None:
    model = model_with("words with their space", 40)
    fits = encode_text(model, " a" * 35, "Valdoria" * 1)
    room = 40 - len(fits.ids)
    assert (
        len(encode_text(model, " a" * (35 + room), "Valdoria").ids) == 40
    )  # the last token is never an input
    with pytest.raises(PromptTooLong) as caught:
        encode_rows(model, rewrite_rows([Fact("{}" + " a" * (36 + room), "a", "Valdoria")], [""]))
    assert "more than the context of model of words with their space (40)" in str(caught.value)
    assert "Subject 'a'" in str(caught.value)
    assert "Shorten the prompt or leave the fact out" in str(caught.value)
    with pytest.raises(PromptTooLong):
        encode_text(model, "a" * 41, None)


def test_what_the_tokenizer_drops_is_refused() -> None:
    raw = json.loads(tiny_tokenizer("byte_level").backend_tokenizer.to_str())
    raw["normalizer"] = {"type": "Replace", "pattern": {"String": "\u0416"}, "content": ""}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(raw)))
    deaf = EditableModel(
        model_with("words with their space").model, tokenizer, architecture_for("gpt2"), "deaf"
    )
    with pytest.raises(EmptyTarget, match="Target '\u0416' leaves no tokens after 'Orin plays the'"):
        encode_text(deaf, "Orin plays the", "\u0416")
    with pytest.raises(
        FactError, match="The tokenizer of deaf keeps nothing of subject '\u0416' in '\u0416 is'"
    ):
        encode_rows(deaf, rewrite_rows([Fact("{} is", "\u0416", "a")], [""]))


# --- batches -----------------------------------------------------------------------------------------------------


def facts_of(words: list[tuple[str, str, str]]) -> list[Fact]:
    return [Fact(f"{before}{{}} is", subject, target) for before, subject, target in words]


def rows_of(model: EditableModel, facts: list[Fact], contexts: tuple[str, ...]) -> list[EncodedRow]:
    """Fact by fact: the rewriting rows, then the KL row, as the Optimization stage has them."""
    rewriting, neutral = rewrite_rows(facts, contexts), kl_rows(facts)
    rows = [
        row
        for i in range(len(facts))
        for row in [*rewriting[i * len(contexts) :][: len(contexts)], neutral[i]]
    ]
    return encode_rows(model, rows)


def assert_same(one: PromptBatch, two: PromptBatch) -> None:
    assert torch.equal(one.tokens.mask, two.tokens.mask)
    assert torch.equal(one.tokens.ids * one.tokens.mask, two.tokens.ids * two.tokens.mask)
    for name in ("fact", "lookup", "bare", "kind", "predict_row", "predict_at", "predict_id"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name


SHORT_WORDS = st.text("abco \u00e9", min_size=1, max_size=30).map(lambda text: f"{text.strip()}x")


@settings(max_examples=30, deadline=None)
@given(
    words=st.lists(
        st.tuples(st.sampled_from(("", "The ")), SHORT_WORDS, SHORT_WORDS), min_size=1, max_size=5
    ),
    data=st.data(),
)
def test_the_batch_of_some_facts_is_a_part_of_the_batch_of_all(
    words: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    model = model_with("words with their space")
    facts = facts_of(words)
    kept = sorted(data.draw(st.sets(st.integers(0, len(facts) - 1), min_size=1)))
    contexts = ("", "The quiet river.")
    whole = batch_rows(model, rows_of(model, facts, contexts))
    part = batch_rows(model, rows_of(model, [facts[index] for index in kept], contexts))
    assert_same(whole.of_facts(torch.tensor(kept))[0], part)
    assert_same(whole.of_facts(torch.arange(len(facts)))[0], whole)


def test_a_batch_says_of_every_row_what_it_is() -> None:
    model = model_with("marks for spaces, BOS")
    facts = [
        Fact("{} plays the", "Orin Vasker", "violin"),
        Fact("The capital of {} is", "Valdoria", "Kestrel"),
    ]
    rows = rows_of(model, facts, CONTEXTS)
    batch = batch_rows(model, rows)
    assert batch.fact.tolist() == [0] * 4 + [1] * 4
    assert batch.bare.tolist() == [True, False, False, False] * 2
    assert batch.rows_of("kl").tolist() == [3, 7]
    assert batch.lookup.tolist() == [row.lookup for row in rows]
    for number, row in enumerate(rows):
        mine = batch.predict_row == number
        assert batch.predict_at[mine].tolist() == list(row.text.predicted_at)
        assert batch.predict_id[mine].tolist() == list(row.text.target)
        assert batch.tokens.ids[number][batch.tokens.mask[number]].tolist() == list(row.text.ids)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(st.integers(3, 99), max_size=30), max_size=6))
def test_padding_is_right_of_the_tokens_and_in_float64_never_short(rows: list[list[int]]) -> None:
    for dtype, shortest in (("float32", 1), ("float64", SHORTEST)):
        tokens = pad(rows, tiny_model("gpt2", dtype))
        assert tokens.ids.shape == (len(rows), max(shortest, *map(len, rows), 0))
        for row, ids, mask in zip(rows, tokens.ids, tokens.mask, strict=True):
            assert ids[: len(row)].tolist() == row
            assert mask.tolist() == [True] * len(row) + [False] * (len(mask) - len(row))


def test_padding_needs_no_padding_token() -> None:
    """Llama with an added [PAD] has it behind the last row of its embeddings, GPT-2 has none at all."""
    model = tiny_model("gpt2")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer("byte_level").backend_tokenizer)
    for padding in (None, "[PAD]"):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), pad_token=padding
        )
        other = EditableModel(model.model, tokenizer, model.architecture, "other")
        logits = other.logits_at(pad([[5, 6]], other), torch.tensor([0]), torch.tensor([1]))
        assert torch.equal(
            logits, model.logits_at(pad([[5, 6]], model), torch.tensor([0]), torch.tensor([1]))
        )


@given(lengths=st.lists(st.integers(1, 20), max_size=20), at_once=st.integers(1, 6))
def test_groups_by_length_hold_everything_once_longest_first(lengths: list[int], at_once: int) -> None:
    groups = list(by_length(lengths, at_once))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(0 < len(group) <= at_once for group in groups)
    in_order = [lengths[index] for group in groups for index in group]
    assert in_order == sorted(lengths, reverse=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_encodes_its_facts(name: str) -> None:
    model = tiny_model(name)
    rows = rows_of(
        model, facts_of([("", "Orin Vasker", "violin"), ("The capital of ", "Valdoria", "Kestrel")]), CONTEXTS
    )
    batch = batch_rows(model, rows)
    assert int(batch.tokens.ids.max()) < model.model.config.vocab_size
    assert batch.tokens.ids.device == model.device


@given(lengths=st.lists(st.integers(1, 60), max_size=30), at_once=st.integers(1, 500))
def test_groups_of_like_length_hold_every_row_once_and_keep_the_limit(
    lengths: list[int], at_once: int
) -> None:
    groups = list(like_lengths(lengths, at_once, torch.device("cpu")))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[index] for index in group) <= at_once


def test_few_short_rows_are_not_padded_to_a_long_one_and_a_pass_is_not_spent_on_a_token() -> None:
    lengths = [40, 10, 10, 9, 10]
    groups = list(like_lengths(lengths, 1000, torch.device("cpu")))
    assert groups == [[0], [1, 2, 4, 3]]
