"""What is tokenised is what the file says: chat prompts, scripts without spaces, quotes, and an explicit `join`."""

from __future__ import annotations

import pytest

from errata.evaluation import Edited
from errata.evaluation.generation import _asked
from errata.evaluation.probabilities import make_plan
from errata.evaluation.questions import Pair, sheets
from errata.facts import Fact
from errata.passes.prompts import encode_rows, encode_text, rewrite_rows
from tokenizer_kinds import KINDS, model_with, special_ids

CHAT = "<|im_start|>user\nWhat is the capital of {}?<|im_end|>\n<|im_start|>assistant\n"
FACTS = [
    Fact(  # "The capital of China is Beijing, the capital of France is"
        "\u4e2d\u56fd\u7684\u9996\u90fd\u662f\u5317\u4eac\uff0c{}\u7684\u9996\u90fd\u662f",
        "\u6cd5\u56fd",
        "\u5df4\u9ece",
    ),
    Fact(
        "\u30d5\u30e9\u30f3\u30b9\u306e\u9996\u90fd\u306f\u30d1\u30ea\u3001{}\u306e\u9996\u90fd\u306f",
        "\u4e2d\u56fd",
        "\u5317\u4eac",
    ),
    Fact(CHAT, "Japan", "Oslo", "Tokyo"),
    Fact('{{"country": "{}", "capital": "'.replace("{{", "{", 1), "Japan", "Oslo"),
    Fact("The capital of {} is\n", "Japan", "Oslo"),
    Fact("{}\u306f", "\u6771\u4eac", "x", join=" "),
    Fact("Tele{}", "phone", "s", join=""),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fact", FACTS, ids=[str(number) for number in range(len(FACTS))])
def test_the_text_is_the_prompt_its_join_and_the_target(kind: str, fact: Fact) -> None:
    model = model_with(kind)
    (row,) = encode_rows(model, rewrite_rows([fact], [""]))
    sent = fact.question + fact.join_before(fact.target_new) + fact.target_new
    added = special_ids(KINDS[kind].base)
    said = [
        one
        for one in (*row.text.ids[: row.text.predicted_at.start + 1], *row.text.target)
        if one not in added
    ]
    assert (
        model.tokenizer.decode(said).strip()
        == model.tokenizer.decode(model.tokenizer(sent, add_special_tokens=False)["input_ids"]).strip()
    )
    assert row.lookup <= row.text.predicted_at.start
    assert model.tokenizer.decode(row.text.target).strip() == fact.target_new


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_at_the_end_of_a_prompt_gives_the_tokens_of_one_between(kind: str) -> None:
    model = model_with(kind)
    plain, ending = Fact("{} plays the", "Orin", "harp"), Fact("{} plays the ", "Orin", "harp")
    one, other = (encode_text(model, fact.question, "harp") for fact in (plain, ending))
    assert (one.ids[0], one.ids, one.target[-1]) == (other.ids[0], other.ids, other.target[-1])


def test_the_model_continues_what_stands_before_the_target() -> None:
    model = model_with("words with their space")
    asked = [
        _asked(model, sheet)
        for sheet in sheets(
            [Fact("{} plays the", "Orin", "harp"), Fact("{} plays the ", "Orin", "harp")], Edited([])
        )
    ]
    # The same text; a space that is a token of its own is the prompt's where the prompt ends in it.
    assert [*asked[0][0], *asked[0][1]] == [*asked[1][0], *asked[1][1]]
    (chat,) = sheets([FACTS[2]], Edited([]))
    assert _asked(model, chat)[0] == encode_text(model, FACTS[2].question, None).ids


def test_answers_joined_otherwise_are_other_answers() -> None:
    model = model_with("words with their space")
    pairs = [Pair("Orin plays", "harp", "here", join) for join in (None, " ", "")]
    plan = make_plan(model, pairs)
    assert [pair.key for pair in pairs] == [("Orin plays", "harp")] * 2 + [("Orin plays", "harp", "")]
    assert len({reading.text.target for reading in plan.readings}) == len(plan.readings) == 2
