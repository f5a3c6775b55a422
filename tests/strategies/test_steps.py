"""Strategies: what is written in steps is what the steps do one by one."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import errata
from errata import errors
from errata.facts.fact import Fact
from errata.methods.base import Changes, no_sites
from errata.methods.registry import METHODS
from errata.methods.runs import Run
from errata.models.model import EditableModel
from errata.strategies import steps
from errata.strategies.steps import Strategy
from errata.values import targets
from errata.values.descent import Outcome
from families import CONTEXTS, FACTS, tiny_model
from plain import plain_row, run
from poison import own_token, poisoned
from strategy_cases import WIDE, assert_untouched, collect_moments, settings_of, stepped, weights_of


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect_moments(tmp_path_factory.mktemp("moments"))


# --- iterations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["memit", "pmet", "rome", "two_site"])
def test_iterations_are_edits_of_the_edited_model(method: str, moments: Path) -> None:
    model = tiny_model("gpt2", "float64")
    before = weights_of(model)
    found = stepped(moments, method, iterations=3, stop="never")
    assert_untouched(model, before)
    with ExitStack() as applied:
        for _ in range(3):
            one = errata.edit(
                model, FACTS, method, settings_of(method), contexts=CONTEXTS, covariance=moments / "float64"
            )
            applied.enter_context(one.applied(model))
        wanted = weights_of(model)
    with found.applied(model):
        for name, weight in model.model.named_parameters():
            torch.testing.assert_close(weight, wanted[name], rtol=0, atol=1e-9)
    assert_untouched(model, before)
    assert [record["iteration"] for record in found.history] == [1, 2, 3]


def test_the_record_of_an_iteration_can_be_recomputed(moments: Path) -> None:
    model = tiny_model("gpt2", "float64")
    found = stepped(moments, iterations=1)
    (record,) = found.history
    assert record["p_spread"] != record["p_optimised"]
    assert record["delta_p"] == pytest.approx(record["p_spread"] - record["p_optimised"])
    with found.applied(model):
        surprisals = []
        for fact in FACTS:
            each = []
            for context in CONTEXTS:
                row = plain_row(model, context, fact.prompt, fact.subject, fact.target_new)
                with torch.no_grad():
                    log_p = run(model, row.ids).log_softmax(dim=-1)[-len(row.target) :]
                each.append(-float(log_p[range(len(row.target)), row.target].mean()))
            surprisals.append(sum(each) / len(each))
    assert record["p_spread"] == pytest.approx(sum(map(math.exp, surprisals)) / len(FACTS), rel=1e-5)
    norms = [float(torch.linalg.matrix_norm(delta.matrix.double())) for delta in found.deltas.values()]
    assert record["update_norms"] == pytest.approx(norms)


@pytest.mark.parametrize(
    ("stop", "spread", "count", "kept"),
    [
        ("delta_p", [90.0, 30.0, 10.5, 10.0], 3, 3),  # the optimised value's p is 10
        ("never", [90.0, 30.0, 10.5, 10.0], 4, 4),
        ("small_change", [90.0, 30.0, 29.5, 10.0], 3, 3),
        ("small_change", [90.0, 30.0, 12.0, 10.5], 4, 4),
        ("monotonic", [90.0, 30.0, 45.0, 10.0], 3, 2),
        ("monotonic", [90.0, 30.0, 20.0, 15.0], 4, 4),
    ],
)
def test_each_stop_rule_stops_where_the_paper_says(
    stop: str, spread: list[float], count: int, kept: int, moments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter(value for p in spread for value in (10.0, p))
    monkeypatch.setattr(steps, "_perplexity", lambda _: next(values))
    found = stepped(moments, dtype="float32", iterations=4, stop=stop)
    assert len(found.history) == count
    assert [record["kept"] for record in found.history] == [True] * kept + [False] * (count - kept)


def test_what_is_taken_back_is_not_in_the_edit(moments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = stepped(moments, dtype="float32", iterations=2, stop="never")
    values = iter(value for p in (90.0, 30.0, 45.0) for value in (10.0, p))
    monkeypatch.setattr(steps, "_perplexity", lambda _: next(values))
    cut = stepped(moments, dtype="float32", iterations=4, stop="monotonic")
    assert len(cut.history) == 3
    for path, delta in two.deltas.items():
        assert torch.equal(delta.matrix, cut.deltas[path].matrix)


def test_the_best_iteration_is_the_one_with_the_lowest_p(
    moments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter(value for p in (90.0, 30.0, 45.0) for value in (10.0, p))
    monkeypatch.setattr(steps, "_perplexity", lambda _: next(values))
    found = stepped(moments, dtype="float32", iterations=3, stop="never", keep_best=True)
    assert [record["kept"] for record in found.history] == [True, True, False]


def test_only_what_is_underedited_is_optimised_again(moments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = steps.measure_targets

    def half_on_top(model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str]) -> object:
        found = measure(model, facts, contexts)
        return replace(found, on_top=torch.tensor([True, False, True, False]))

    monkeypatch.setattr(steps, "measure_targets", half_on_top)
    found = stepped(moments, dtype="float32", iterations=2, stop="never", only_underedited=True)
    assert [record["optimised"] for record in found.history] == [4, 2]
    assert [record["underedited"] for record in found.history] == [2, 2]
    assert len(found.facts) == 4
    monkeypatch.undo()
    everything = stepped(moments, dtype="float32", iterations=2, stop="never")
    assert not all(
        torch.equal(delta.matrix, everything.deltas[path].matrix) for path, delta in found.deltas.items()
    )


def test_a_known_value_stays_the_facts_own_when_another_fact_is_left_out(
    moments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, measure, known = tiny_model("gpt2", "float64"), steps.measure_targets, []

    def last_on_top(model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str]) -> object:
        found = measure(model, facts, contexts)
        return replace(found, on_top=torch.tensor([fact == FACTS[-1] for fact in facts]))

    def spied(self: Run, facts: Sequence[Fact], outcomes: dict[int, Outcome], *rest: object) -> Changes:
        changes = changes_of(self, facts, outcomes, *rest)  # type: ignore[arg-type]
        known.append({facts[place]: outcome for place, outcome in outcomes.items()})
        values.append(dict(zip(facts, changes.outcomes, strict=True)))
        return changes

    changes_of, values = Run.changes, list[dict[Fact, Outcome]]()
    monkeypatch.setattr(steps, "measure_targets", last_on_top)
    monkeypatch.setattr(Run, "changes", spied)
    with poisoned(model, own_token(model, FACTS[0], FACTS[1:])):
        found = stepped(moments, iterations=2, stop="never", only_underedited=True)
    assert [one.fact for one in found.dropped] == [FACTS[0]]
    assert known == [{}, {FACTS[-1]: values[0][FACTS[-1]]}]
    assert [record["facts"] for record in found.history] == [3, 3]
    assert [record["optimised"] for record in found.history] == [3, 2]


def test_iterations_end_where_no_value_is_a_number_any_more(
    moments: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, run_once = stepped(moments, dtype="float32"), Run.changes
    answers = iter([run_once])

    def once(self: Run, *given: object) -> Changes:
        for answer in answers:
            return answer(self, *given)  # type: ignore[arg-type]
        raise errors.NoFactsLeft("no loss is a number")

    monkeypatch.setattr(Run, "changes", once)
    with caplog.at_level(logging.WARNING):
        found = stepped(moments, dtype="float32", iterations=3, stop="never")
    assert "Iteration 2 found nothing to write" in caplog.text
    assert (found.facts, found.dropped, len(found.history)) == (FACTS, (), 1)
    for path, delta in one.deltas.items():
        assert torch.equal(delta.matrix, found.deltas[path].matrix)


def test_methods_without_values_cannot_be_iterated() -> None:
    valueless = replace(METHODS["memit"], sites=no_sites)
    steps.check_strategy(valueless, Strategy())
    with pytest.raises(errors.SettingsError, match="nothing to iterate"):
        steps.check_strategy(valueless, Strategy(iterations=2))


@pytest.mark.parametrize(
    "wrong",
    [{"iterations": 0}, {"batch_size": 0}, {"epsilon": -1.0}, {"epsilon": math.nan}],
)
def test_numbers_without_a_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(errors.SettingsError):
        Strategy(**wrong)  # type: ignore[arg-type]


def test_a_stop_rule_that_there_is_not_is_refused() -> None:
    strategy = Strategy()
    object.__setattr__(strategy, "stop", "soon")  # the type is checked while tests run, and only then
    with pytest.raises(errors.SettingsError, match="no stop rule 'soon'"):
        strategy.__post_init__()


def test_the_weights_are_put_back_when_a_run_is_killed(moments: Path, tmp_path: Path) -> None:
    model = tiny_model("gpt2", "float32")
    before, whole = weights_of(model), stepped(moments, dtype="float32", iterations=2, stop="never")

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "spread, iteration 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stepped(moments, dtype="float32", iterations=2, stop="never", keep_in=tmp_path, on_progress=kill)
    assert_untouched(model, before)
    again = stepped(moments, dtype="float32", iterations=2, stop="never", keep_in=tmp_path)
    for path, delta in whole.deltas.items():
        assert torch.equal(delta.matrix, again.deltas[path].matrix)


def test_a_killed_run_finds_its_values_again(
    moments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped(moments, dtype="float32", iterations=2, stop="never", keep_in=tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("a value was computed again")

    monkeypatch.setattr(targets, "optimize_batch", never)
    stepped(moments, dtype="float32", iterations=2, stop="never", keep_in=tmp_path)


# --- batches ---------------------------------------------------------------------------------------


def test_batches_are_edits_one_after_the_other(moments: Path) -> None:
    model = tiny_model("gpt2", "float64")
    before = weights_of(model)
    found = stepped(moments, batch_size=3)
    assert [(record["batch"], record["facts"]) for record in found.history] == [(1, 3), (2, 1)]
    first = errata.edit(model, FACTS[:3], "memit", WIDE, contexts=CONTEXTS, covariance=moments / "float64")
    with first.applied(model):
        second = errata.edit(
            model, FACTS[3:], "memit", WIDE, contexts=CONTEXTS, covariance=moments / "float64"
        )
        with second.applied(model):
            wanted = weights_of(model)
    with found.applied(model):
        for name, weight in model.model.named_parameters():
            torch.testing.assert_close(weight, wanted[name], rtol=0, atol=1e-9)
    assert_untouched(model, before)


def test_a_batch_without_values_is_left_out_and_the_next_one_follows(moments: Path) -> None:
    model = tiny_model("gpt2", "float64")
    others, bad = FACTS[1:], FACTS[0]
    with poisoned(model, own_token(model, bad, others)):
        found = stepped(moments, "rome", batch_size=1)
        with pytest.raises(errors.NoFactsLeft):
            stepped(moments, "rome", [bad], batch_size=1)
    assert found.facts == others
    assert [one.fact for one in found.dropped] == [bad]
    assert [record["batch"] for record in found.history] == [2, 3, 4]


def test_later_batches_of_alphaedit_know_the_earlier_keys(moments: Path) -> None:
    model = tiny_model("gpt2", "float64")
    settings = settings_of("alphaedit")
    found = stepped(moments, "alphaedit", batch_size=2)
    first = errata.edit(
        model, FACTS[:2], "alphaedit", settings, contexts=CONTEXTS, covariance=moments / "float64"
    )
    alone = errata.edit(
        model, FACTS[2:], "alphaedit", settings, contexts=CONTEXTS, covariance=moments / "float64"
    )
    for path, delta in found.deltas.items():
        assert not torch.allclose(delta.matrix, first.deltas[path].matrix + alone.deltas[path].matrix)
