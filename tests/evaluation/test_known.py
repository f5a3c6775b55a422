"""`known_facts`: which facts a model knows, in order, up to a limit, and after a kill."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from errata.evaluation import known, probabilities
from errata.evaluation.known import known_facts
from errata.facts.fact import Fact
from errata.models.model import EditableModel
from tiny import SAYS, parrot

SUBJECTS = ("Orin Vasker", "Mira Tolland", "Edda Rowe", "Hale Corvin", "Petra Lund", "Jonas Whitlock")
KNOWN = (True, False, True, True, False, True)


@pytest.fixture(scope="module")
def model() -> EditableModel:
    """Right where the answer is "the", however often, and wrong elsewhere."""
    return parrot()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Fact]:
    """Six facts, two a round, of which the model knows four."""
    monkeypatch.setattr(known, "FACTS_AT_ONCE", 2)
    return [
        Fact("{} plays the", subject, "violin", f"{SAYS} {SAYS}" if right else f"{SAYS} harp")
        for subject, right in zip(SUBJECTS, KNOWN, strict=True)
    ]


def says(model: EditableModel, fact: Fact) -> bool:
    """The same slowly: one forward pass over the whole text, without a batch."""
    prompt = model.tokenizer(fact.question).input_ids
    ids = model.tokenizer(f"{fact.question} {fact.target_true}").input_ids
    with torch.no_grad():
        best = model.model(torch.tensor([ids])).logits[0].argmax(dim=-1).tolist()
    return ids[: len(prompt)] == prompt and best[len(prompt) - 1 : -1] == ids[len(prompt) :]


def test_the_known_facts_in_the_order_given(model: EditableModel, asked: list[Fact]) -> None:
    found = known_facts(model, asked)
    assert found.facts == tuple(fact for fact, right in zip(asked, KNOWN, strict=True) if right)
    assert found.facts == tuple(fact for fact in asked if says(model, fact))
    assert (found.asked, found.unanswerable, found.share) == (6, 0, 4 / 6)


def test_a_fact_without_a_true_answer_is_left_out(model: EditableModel, asked: list[Fact]) -> None:
    found = known_facts(model, [replace(asked[0], target_true=None), *asked[2:]])
    assert found.facts == (asked[2], asked[3], asked[5])
    assert (found.asked, found.unanswerable) == (4, 1)
    assert known_facts(model, [replace(asked[0], target_true=None)]).share == 0.0


@pytest.mark.parametrize(("limit", "facts_asked"), [(1, 1), (2, 3), (3, 4), (9, 6)])
def test_a_limit_finds_the_first_known_ones(
    model: EditableModel, asked: list[Fact], limit: int, facts_asked: int
) -> None:
    found = known_facts(model, asked, limit)
    assert found.facts == known_facts(model, asked).facts[:limit]
    assert found.asked == facts_asked


def test_a_limit_of_nothing_is_refused(model: EditableModel, asked: list[Fact]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        known_facts(model, asked, limit=0)


def test_progress_counts_facts(model: EditableModel, asked: list[Fact]) -> None:
    heard: list[tuple[str, int, int]] = []
    known_facts(model, asked, on_progress=lambda *each: heard.append(each))
    assert heard == [("known facts", done, 6) for done in (2, 4, 6)]


def test_a_killed_run_resumes_and_finds_the_same(
    model: EditableModel, asked: list[Fact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = known_facts(model, asked)
    batches: list[object] = []
    measure_batch: Callable[..., object] = probabilities._measure_batch

    def dies(*given: object) -> object:
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(given)
        return measure_batch(*given)

    monkeypatch.setattr(probabilities, "_measure_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        known_facts(model, asked, keep_in=tmp_path)
    batches.pop()
    assert known_facts(model, asked, keep_in=tmp_path) == whole
    assert list(tmp_path.iterdir()) == []
