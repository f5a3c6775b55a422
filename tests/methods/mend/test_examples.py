"""What a training step draws."""

import random
from dataclasses import replace

import pytest

from errata.errors import FactError
from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.methods.mend.examples import Example, draw, split
from families import FACTS, tiny_model
from mend_cases import (
    examples,
    trainable,
)


def test_a_draw_hangs_on_its_seed_alone() -> None:
    model = tiny_model("gpt2")
    one, same, other = (draw(model, examples(), (3,), 1, 2, random.Random(seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert (len(one.facts), len(one.written), len(one.kept)) == (3, 3, 6)


def test_no_question_about_another_written_subject_shall_stay() -> None:
    model = tiny_model("gpt2")
    facts = [
        Fact("{} sleeps", "Zentro", "well"),
        Fact("{} runs", "Hale", "far", neighborhood_prompts=("Zentro runs",)),
    ]
    both = [Example.of(fact, ("neighborhood",)) for fact in facts]
    assert draw(model, both, (2,), 1, 5, random.Random(0)).kept == ()
    assert len(draw(model, both[1:], (2,), 1, 5, random.Random(0)).kept) == 1


def test_a_fact_without_paraphrases_is_asked_by_its_own_prompt() -> None:
    example = Example.of(FACTS[0], ("neighborhood",))
    assert example.written == ((FACTS[0].question, FACTS[0].target_new),)
    assert example.kept == ()


def test_other_prompts_of_the_subject_are_kept_on_request() -> None:
    fact = Fact("{} sleeps", "Zentro", "well", same_subject_prompts=(Probe("{} eats", "fish"),))
    assert Example.of(fact, ("same_subject",)).kept == (("Zentro eats", "fish"),)
    assert Example.of(fact, ("neighborhood", "unrelated")).kept == ()


def test_no_subject_is_both_trained_on_and_held_back() -> None:
    again = [Example.of(replace(fact, prompt="{} died in"), ()) for fact in trainable()]
    training, judged = split([*examples(), *again], 3, random.Random(0))
    assert len(training) + len(judged) == 12
    assert not {one.fact.subject for one in training} & {one.fact.subject for one in judged}
    with pytest.raises(FactError, match="too few to train on some of them and judge by 6 others"):
        split(examples(), 6, random.Random(0))
