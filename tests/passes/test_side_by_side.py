"""Batches side by side: the same results, one set of weights, and an end that nobody waits for long."""

import threading
from collections.abc import Iterator

import pytest
import torch

import environment
from errata.errors import OutOfMemory
from errata.models.model import EditableModel
from errata.passes import memory
from errata.passes.prompts import encode_text, pad
from errata.passes.side_by_side import MOST, side_by_side, workers_for
from errata.values import targets as targets_module
from errata.values.settings import PLACES
from errata.values.targets import optimize_targets
from families import CONTEXTS, FACTS, FAMILIES, tiny_model
from sites import ValueStage, stage_of
from tiny import fresh_model

SETTINGS = stage_of(
    ValueStage,
    {
        "layers": (1, 2),
        "steps": 3,
        "learning_rate": 0.5,
        "clamp": 5.0,
        "decay": 0.5,
        "kl_weight": 0.5,
        "nll_weight": 1.0,
        "kl_position": "subject",
        "optimize": ("attention", "ffn"),
    },
)


@pytest.fixture
def three_threads() -> Iterator[None]:
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(environment.threads())


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_the_same_as_one_after_another(
    family: str, three_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(family, "float32")
    monkeypatch.setattr(memory, "MOST", 1)
    found = optimize_targets(model, FACTS, CONTEXTS, SETTINGS)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    plain = optimize_targets(model, FACTS, CONTEXTS, SETTINGS)
    for place in PLACES[:2]:
        assert torch.equal(found.delta[place], plain.delta[place])
        assert torch.equal(found.initial[place], plain.initial[place])


def test_workers_share_the_weights_and_leave_the_model_as_it_was(three_threads: None) -> None:
    model = tiny_model("gpt2")
    seen: list[EditableModel] = []
    together = threading.Barrier(3, timeout=20)

    def work(own: EditableModel, job: int) -> int:
        together.wait()
        seen.append(own)
        return job

    with side_by_side(model, 3, work) as run:
        assert sorted(job for job, _ in run(range(3))) == [0, 1, 2]
    assert len({id(own.model) for own in [*seen, model]}) == 4
    for own in seen:
        pairs = zip(own.model.parameters(), model.model.parameters(), strict=True)
        assert all(one is other for one, other in pairs)
    assert not model.model._forward_pre_hooks


def test_an_error_ends_the_run_and_the_other_workers_at_their_next_pass(three_threads: None) -> None:
    model = tiny_model("gpt2")
    tokens = pad([encode_text(model, "Today I see", None).ids], model)
    begun, ended = threading.Event(), threading.Event()

    def work(own: EditableModel, job: str) -> None:
        if job == "bad":
            begun.wait(20)
            raise ValueError("bad")
        try:
            while True:
                own.forward(tokens)
                begun.set()
        finally:
            ended.set()

    with pytest.raises(ValueError, match="bad"), side_by_side(model, 2, work) as run:
        list(run(["long", "bad"]))
    assert ended.is_set()
    assert torch.get_num_threads() == 3


def test_a_batch_too_large_is_halved_by_the_side_of_others(
    three_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gpt2", "float32")
    whole = targets_module.optimize_batch

    def limited(own: EditableModel, batch: object, *rest: object) -> object:
        if int(batch.fact.max()) > 0:  # type: ignore[attr-defined]
            raise MemoryError
        return whole(own, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(targets_module, "optimize_batch", limited)
    found = optimize_targets(model, FACTS, CONTEXTS, SETTINGS)
    assert len(found.outcomes) == len(FACTS)
    monkeypatch.setattr(targets_module, "optimize_batch", lambda *_: limited(model, batch_of_two()))
    with pytest.raises(OutOfMemory):
        optimize_targets(model, FACTS, CONTEXTS, SETTINGS)


def batch_of_two() -> object:
    class Two:
        fact = torch.tensor([0, 1])

    return Two()


def test_only_a_cpu_has_more_than_one_worker(three_threads: None) -> None:
    model = fresh_model()
    assert workers_for(model, 10) == min(MOST, 3)
    assert workers_for(model, 2) == 2
    model.model.hf_device_map = {"": "cpu"}  # type: ignore[assignment]
    assert workers_for(model, 10) == 1
