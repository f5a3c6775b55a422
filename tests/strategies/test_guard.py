"""The guard: a write that harms the model is taken back."""

import logging
import math
from pathlib import Path

import pytest
import torch

from errata import errors
from errata.edits.deltas import Delta
from errata.evaluation.perplexity import text_perplexity
from errata.facts.fact import Fact
from errata.facts.probes import Neighbor, Probe
from errata.methods.base import Changes
from errata.methods.runs import Run
from errata.strategies import guard
from errata.strategies.guard import PLAIN_TEXTS, Guard, Health, Watch
from families import FACTS, SENTENCES, tiny_model
from strategy_cases import assert_untouched, collect_moments, stepped, weights_of
from tolerances import assert_agree

GUARD = Guard(texts=SENTENCES)


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect_moments(tmp_path_factory.mktemp("moments"))


def test_the_guard_takes_the_write_back_and_keeps_what_was_good(
    moments: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("gpt2", "float32")
    before, two = weights_of(model), stepped(moments, "rome", FACTS[:2], dtype="float32")
    healths = iter([Health(10.0, 1.0), Health(11.0, 1.0), Health(12.0, 0.9), Health(99.0, 0.9)])
    monkeypatch.setattr(Watch, "measure", lambda _: next(healths))
    with caplog.at_level(logging.WARNING):
        found = stepped(moments, "rome", dtype="float32", guard=GUARD)
    assert "The run has ended at write 3" in caplog.text
    assert "rose from 10 to 99" in str(found.origin.strategy["ended_by"])
    assert found.facts == FACTS[:2]
    assert [one.fact for one in found.dropped] == list(FACTS[2:])
    assert "rose from 10 to 99" in found.dropped[0].reason
    assert [record["perplexity"] for record in found.history] == [11.0, 12.0]
    for path, delta in two.deltas.items():
        assert_agree(delta.matrix, found.deltas[path].matrix, 32)
    assert_untouched(model, before)


@pytest.mark.parametrize("bad", [Health(31.0, 1.0), Health(math.nan, 1.0), Health(10.0, 0.4)])
def test_a_first_write_that_harms_leaves_no_edit(
    bad: Health, moments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gpt2", "float32")
    before, healths = weights_of(model), iter([Health(10.0, 1.0), bad])
    monkeypatch.setattr(Watch, "measure", lambda _: next(healths))
    with pytest.raises(errors.Collapsed, match="first write"):
        stepped(moments, dtype="float32", guard=GUARD)
    assert_untouched(model, before)


def test_a_bad_iteration_keeps_the_facts_of_the_good_ones(
    moments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stepped(moments, dtype="float32", iterations=1)
    healths = iter([Health(10.0, 1.0), Health(11.0, 1.0), Health(99.0, 1.0)])
    monkeypatch.setattr(Watch, "measure", lambda _: next(healths))
    found = stepped(moments, dtype="float32", iterations=3, stop="never", guard=GUARD)
    assert (found.facts, found.dropped) == (FACTS, ())
    for path, delta in one.deltas.items():
        assert torch.equal(delta.matrix, found.deltas[path].matrix)


@pytest.mark.parametrize("guard", [GUARD, None])
def test_a_write_that_is_not_a_number_is_taken_back(
    guard: Guard | None, moments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, run_once = tiny_model("gpt2", "float32"), Run.changes
    before, one = weights_of(model), stepped(moments, dtype="float32")
    broken = {
        path: Delta(None, None, torch.full(delta.shape, math.inf)) for path, delta in one.deltas.items()
    }
    monkeypatch.setattr(Watch, "measure", lambda _: Health(10.0, 1.0))
    changes = iter([None, Changes(broken), Changes(broken)])
    monkeypatch.setattr(Run, "changes", lambda *given: next(changes) or run_once(*given))
    found = stepped(moments, dtype="float32", iterations=2, stop="never", guard=guard)
    assert "infinite or not a number" in str(found.origin.strategy["ended_by"])
    for path, delta in one.deltas.items():
        assert torch.equal(delta.matrix, found.deltas[path].matrix)
    with pytest.raises(errors.Collapsed, match="first write"):
        stepped(moments, dtype="float32", guard=guard)
    assert_untouched(model, before)


def test_the_guard_asks_nothing_that_an_edit_sees() -> None:
    seen = (Probe("The capital of Mirenth is", "Lindale"), Probe("Zentro was created by", "Bellwether"))
    held_out = Probe("The capital of Tessaly is", "Port Avel")
    fact = Fact(
        *("The capital of {} is", "Valdoria", "Kestrel", "Lindale"),
        neighborhood_prompts=(*seen, held_out),
        neighbors=(Neighbor("The capital of {} is", "Mirenth", "Lindale"),),
    )
    assert guard._neighbors([fact, FACTS[3]], 0) == [held_out]


def test_a_model_in_good_health_is_left_alone(moments: Path) -> None:
    loose = Guard(texts=SENTENCES, max_perplexity_ratio=1e6, min_accuracy_ratio=0.0)
    guarded, free = (stepped(moments, dtype="float32", guard=guard) for guard in (loose, None))
    for path, delta in free.deltas.items():
        assert torch.equal(delta.matrix, guarded.deltas[path].matrix)
    assert {"perplexity", "neighbor_accuracy"} <= guarded.history[0].keys()


def test_without_texts_the_guard_measures_plain_sentences() -> None:
    fact = Fact("The capital of {} is", "Valdoria", "Kestrel")
    model = tiny_model("gpt2")
    watch, named = (Watch(Guard(texts=texts), model, [fact], 0) for texts in ((), PLAIN_TEXTS))
    assert watch.before == named.before
    assert watch.before.accuracy == 1.0


@pytest.mark.parametrize("wrong", [{"max_perplexity_ratio": 1.0}, {"min_accuracy_ratio": 1.0}])
def test_bounds_without_a_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(errors.SettingsError, match="guard"):
        Guard(**wrong)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_perplexity_is_that_of_each_text_alone(family: str) -> None:
    model = tiny_model(family, "float64")
    each = []
    for text in SENTENCES:
        ids = torch.tensor([model.tokenizer(text).input_ids])
        with torch.no_grad():
            log_p = model.model(input_ids=ids).logits[0].log_softmax(dim=-1)
        said = log_p[range(ids.shape[1] - 1), ids[0, 1:]].sum()
        each.append(math.exp(-float(said) / ids.shape[1]))
    assert text_perplexity(model, SENTENCES) == pytest.approx(sum(each) / len(each), rel=1e-9)


def test_texts_of_one_token_have_no_perplexity() -> None:
    with pytest.raises(ValueError, match="two tokens"):
        text_perplexity(tiny_model("gpt2"), ["a", "b"])
