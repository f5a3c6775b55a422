"""Facts that are asked about, a slow version of every answer, and a parrot that knows three sentences."""

from collections.abc import Sequence

import pytest
import torch

from errata.edits.deltas import Delta
from errata.edits.edit import Edit, EditOrigin
from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.models.model import EditableModel
from errata.results.outcomes import Answer, Outcomes
from families import tiny_model

FACTS = (
    Fact(
        prompt="The capital of {} is",
        subject="France",
        target_new="Rome",
        target_true="Paris",
        paraphrase_prompts=("France, whose capital is", "They say: the capital of France is"),
        neighborhood_prompts=("The capital of Valdoria is", Probe("Berlin lies near", "Kestrel")),
        same_subject_prompts=(Probe("France is near", "the sea"), Probe("The capital of France is", "Paris")),
        unrelated_prompts=(Probe("Edda works in", "the field"), Probe("In France they play the", "violin")),
        case_id=7,
        relation_id="P36",
    ),
    Fact("{} lives in", "Jonas", "New York", "New", paraphrase_prompts=("Where? Jonas lives in",)),
    Fact("{} was born in", "Mira Tolland", "Lindale near Kestrel", "Oslo", case_id="b"),
    Fact("{} plays the", "Zoë Łuk", "violin", neighborhood_prompts=("Jonas plays the",)),
    Fact("Near the sea lives {} in", "Mira", "a", "the north of Valdoria, they say"),
)


def exact_model(family: str) -> EditableModel:
    """A tiny model in float64, where the order of sums hardly shows."""
    return tiny_model(family, "float64")


# The slow version.
def slow_ids(model: EditableModel, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """Prompt and target by tokenising twice: right where the tokens of the prompt do not depend on what follows."""
    prompt_ids = [int(token) for token in model.tokenizer(prompt)["input_ids"]]
    ids = [int(token) for token in model.tokenizer(f"{prompt} {target}")["input_ids"]]
    assert ids[: len(prompt_ids)] == prompt_ids
    return prompt_ids, ids[len(prompt_ids) :]


def slow_logits(model: EditableModel, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.model(input_ids=torch.tensor([list(ids)])).logits[0]


def slow_answer(model: EditableModel, prompt: str, target: str) -> Answer:
    prompt_ids, target_ids = slow_ids(model, prompt, target)
    log_p = slow_logits(model, [*prompt_ids, *target_ids][:-1]).log_softmax(-1)
    places = range(len(prompt_ids) - 1, len(prompt_ids) + len(target_ids) - 1)
    values = tuple(float(log_p[place, token]) for place, token in zip(places, target_ids, strict=True))
    predicted = tuple(int(log_p[place].argmax()) for place in places)
    return Answer(
        target, tuple(target_ids), values, predicted, model.tokenizer.decode(list(predicted)).strip()
    )


def assert_same_answer(fast: Answer, slow: Answer) -> None:
    assert (fast.text, fast.tokens, fast.predicted) == (slow.text, slow.tokens, slow.predicted)
    assert fast.predicted_text == slow.predicted_text
    # Some families compute their attention in float32 whatever the weights are.
    assert fast.log_probabilities == pytest.approx(slow.log_probabilities, abs=1e-6)


def assert_same_outcomes(one: Outcomes, other: Outcomes) -> None:
    assert one.continuation == other.continuation
    assert len(one.questions) == len(other.questions)
    for mine, theirs in zip(one.questions, other.questions, strict=True):
        assert mine.prompt == theirs.prompt
        assert (mine.rival is None) == (theirs.rival is None)
        assert_same_answer(mine.wanted, theirs.wanted)
        if mine.rival is not None and theirs.rival is not None:
            assert_same_answer(mine.rival, theirs.rival)


# With an edit.
def edit_of(model: EditableModel, facts: Sequence[Fact] = FACTS, size: float = 1.0) -> Edit:
    """An edit that changes one FFN at random."""
    site = model.site("ffn", 0)
    generator = torch.Generator().manual_seed(1)
    left = size * torch.randn(site.d_out, 2, generator=generator, dtype=torch.float64)
    right = torch.randn(2, site.d_in, generator=generator, dtype=torch.float64)
    origin = EditOrigin(
        method="pmet",
        settings={"layers": (0, 1), "learning_rate": 0.1},
        contexts=("", "The."),
        seed=3,
        model=model.name,
        revision=None,
        fingerprint=model.measure_fingerprint(),
        model_dtype="float64",
        covariance="none",
        preset="none",
        versions={"errata": "0"},
        created="2025-01-01",
    )
    return Edit({site.path: Delta(left, right)}, tuple(facts), origin)
