"""The prefixes: sampled once, the same for one seed wherever and whenever; and what a user may give instead."""

import dataclasses
import json
import re
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from errata.errors import SettingsError
from errata.models.model import EditableModel
from errata.passes import contexts
from errata.passes.contexts import LENGTH, SHORT_AND_SHORTER, STARTS, TOP_K, check_contexts, sample_contexts
from errata.passes.prompts import pad
from families import FAMILIES, tiny_model, tiny_tokenizer

every_family = pytest.mark.parametrize("name", FAMILIES)


def spied_on(model: EditableModel, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The token ids of the contexts that are sampled from now on."""
    sampled: list[list[int]] = []
    original = model.tokenizer.decode
    start = [token for token in model.tokenizer("The")["input_ids"] if token == model.tokenizer.bos_token_id]

    def decode(ids: list[int]) -> str:
        sampled.append([*start, *ids])
        return original(ids)

    monkeypatch.setattr(model.tokenizer, "decode", decode)
    return sampled


def special_ids(model: EditableModel) -> set[int]:
    added = model.tokenizer.added_tokens_decoder
    return {number for number, token in added.items() if token.special} | {*model.tokenizer.all_special_ids}


@every_family
def test_the_empty_one_and_five_short_texts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(name)
    sampled = spied_on(model, monkeypatch)
    found = sample_contexts(model)
    assert found[0] == ""
    assert len(found) == 6
    assert [len(ids) for ids in sampled] == [LENGTH] * 5
    for text, start in zip(found[1:], STARTS, strict=True):
        assert text.startswith(start)
        assert text.endswith(".")
        assert text.strip() == text
        assert not re.search(r"[{}\n\t\r]|  ", text)
    assert check_contexts(found) == found


@every_family
def test_one_seed_gives_one_set_whatever_else_is_drawn(name: str) -> None:
    model = tiny_model(name)
    first = sample_contexts(model, 3)
    torch.manual_seed(99)
    torch.rand(17)
    state = torch.get_rng_state()
    assert sample_contexts(model, 3) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert sample_contexts(model, 4) != first
    assert sample_contexts(model) == sample_contexts(model, 0)


@every_family
def test_rome_has_ten_texts_of_five_tokens_and_ten_of_ten(name: str) -> None:
    model = tiny_model(name)
    found = sample_contexts(model, 2, SHORT_AND_SHORTER)
    assert (
        found == sample_contexts(model, 2, SHORT_AND_SHORTER) != sample_contexts(model, 3, SHORT_AND_SHORTER)
    )
    assert check_contexts(found) == found
    assert len(found) == 21
    for text, start in zip(found[1:], STARTS * 4, strict=True):
        assert text.startswith(start)
    counts = [len(model.tokenizer(text).input_ids) for text in found[1:]]
    assert sum(counts[:10]) < sum(counts[10:])


@every_family
def test_a_text_that_would_stand_there_twice_goes_on(name: str) -> None:
    """Of one token, so that all three of a start word begin as the start word alone."""
    found = sample_contexts(tiny_model(name), shape=((1, 3),))
    assert len(set(found)) == 16
    assert found[1:6] == tuple(f"{start}." for start in STARTS)


@every_family
def test_keeping_earlier_tokens_gives_the_same_texts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(name, "float64")
    found = sample_contexts(model, 5, SHORT_AND_SHORTER)

    def whole(kept: contexts._Kept, ids: list[list[int]], growing: list[int]) -> torch.Tensor:
        return contexts._next_logits(kept.model, [ids[index] for index in growing])

    monkeypatch.setattr(contexts._Kept, "next_logits", whole)
    assert sample_contexts(model, 5, SHORT_AND_SHORTER) == found


def test_the_training_mode_of_gradients_changes_nothing() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        quiet = sample_contexts(model)
    assert sample_contexts(model) == quiet


@every_family
def test_each_token_is_among_the_likeliest_and_none_is_special(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of the model itself, text by text, without padding."""
    model = tiny_model(name, "float64")
    sampled = spied_on(model, monkeypatch)
    sample_contexts(model, 1)
    special = special_ids(model)
    for start, ids in zip(STARTS, sampled, strict=True):
        given = list(model.tokenizer(start)["input_ids"])
        assert ids[: len(given)] == given
        for length in range(len(given), LENGTH):
            logits = model.model(input_ids=pad([ids[:length]], model).ids).logits[0, length - 1]
            allowed = [token for token in logits.argsort(descending=True).tolist() if token not in special]
            assert ids[length] in allowed[:TOP_K]


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_a_tokenizer_that_adds_an_end_of_text_changes_nothing(kind: str) -> None:
    """The end of text that it puts behind the start word is not what a text begins with."""
    model = tiny_model("gpt2" if kind == "byte_level" else "llama")
    raw = json.loads(tiny_tokenizer(kind).backend_tokenizer.to_str())
    tokens = {"<s>": 1, "</s>": 2} if kind == "byte_level" else {"<s>": 2, "</s>": 3}
    parts = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]
    if kind == "sentencepiece":
        parts.insert(0, {"SpecialToken": {"id": "<s>", "type_id": 0}})
    special = {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in tokens.items()}
    raw["post_processor"] = {
        "type": "TemplateProcessing",
        "single": parts,
        "pair": parts,
        "special_tokens": special,
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(raw)),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )
    assert tokenizer("The")["input_ids"][-1] == tokenizer.eos_token_id
    assert sample_contexts(dataclasses.replace(model, tokenizer=tokenizer)) == sample_contexts(model)


def test_braces_and_line_breaks_become_spaces() -> None:
    assert contexts._as_context("The {x}\n\n y\u00a0z ") == "The x y z."
    assert contexts._as_context("It ended.") == "It ended.."  # as the published programs do


# --- the user's own ----------------------------------------------------------------------------------------------


def test_good_ones_are_taken_as_they_are() -> None:
    assert check_contexts(["", "The river.", "I think {so}."]) == ("", "The river.", "I think {so}.")
    assert check_contexts([""]) == ("",)


def test_white_space_at_the_end_is_dropped_for_a_space_follows() -> None:
    assert check_contexts(["", "The river. ", " I think.\n"]) == ("", "The river.", " I think.")


@pytest.fixture
def types_unchecked() -> Iterator[None]:
    """As it is for users: the tests' check of types comes first otherwise."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], 'The first context must be the empty text ""'),
        (["The river.", ""], 'The first context must be the empty text ""'),
        (["{}", "The river. {}"], 'The first context must be the empty text ""'),
        (["", "The river.", "  "], "Context 2 is empty. Only the first one may be."),
        (["", "The river.", "Then.", "The river. "], "Context 3, 'The river.', stands there twice."),
        (["", "The river. {}"], "Context 1, 'The river. {}', holds a '{}'. Give only the text"),
        ("The river.", "The contexts must be a list of texts, and are 'The river.'."),
        (["", None], "The contexts must be a list of texts, and are ['', None]."),
        (["", 3], "The contexts must be a list of texts, and are ['', 3]."),
    ],
)
def test_what_cannot_serve_is_named(given: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_contexts(given)
    assert str(caught.value).startswith(message)
