"""Where the subject ends and what the target is, checked by counting bytes: offsets are not asked again.

Each tokenizer's tokens are turned into the bytes that they stand for. Laid end to end they are the text, so the token
that holds a given byte is found by adding up lengths.
"""

import json
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from errata.errors import EmptyTarget, FactError, PromptTooLong
from errata.facts.fact import Fact
from errata.models.architectures import architecture_for
from errata.models.model import EditableModel
from errata.passes.prompts import (
    encode_rows,
    encode_text,
    kl_rows,
    rewrite_rows,
)
from families import tiny_tokenizer
from profiles import examples
from tokenizer_kinds import (
    ALL_KINDS,
    CONTEXTS,
    KINDS,
    check,
    encode,
    model_with,
    special_ids,
    tokenizer_of,
)

# --- the tokenizers ----------------------------------------------------------------------------------------------


every_tokenizer = pytest.mark.parametrize("kind", ALL_KINDS)


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
@examples(120)
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
    check(kind, Fact(before + "{}" + after.rstrip(), subject, target, join=" "), context)


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
