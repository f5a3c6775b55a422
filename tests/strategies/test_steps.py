"""Strategies: what is written in steps is what the steps do one by one, and every write can be taken back."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import errata
from errata import errors
from errata.edits.deltas import Delta, sum_deltas
from errata.evaluation.perplexity import text_perplexity
from errata.facts.fact import Fact
from errata.facts.probes import Neighbor, Probe
from errata.methods.base import Changes
from errata.methods.registry import METHODS
from errata.methods.runs import Run
from errata.models.model import EditableModel
from errata.moments.collection import collect
from errata.planning.plan import prepare
from errata.planning.request import EditRequest
from errata.runtime.progress import Progress, silent
from errata.solve.spread import SpreadSettings
from errata.strategies import guard, steps
from errata.strategies.guard import Guard, Health, Watch
from errata.strategies.steps import Strategy
from errata.strategies.writing import Writer
from errata.values import targets
from errata.values.descent import Outcome
from errata.values.surprisal import measure_targets
from families import CONTEXTS, FACTS, SENTENCES, SETTINGS, tiny_model
from method_cases import LATE
from plain import plain_row, run
from poison import own_token, poisoned

GUARD = Guard(texts=SENTENCES)
WIDE = {**SETTINGS, "solve.covariance_weight": 0.5, "values.clamp": 3.0, "values.learning_rate": 0.5}


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moments")
    for dtype in ("float32", "float64"):
        model = tiny_model("gpt2", dtype)
        sites = [model.site("ffn", layer) for layer in (0, 1, 2)]
        collect(model, sites, SENTENCES * 5, folder=folder / dtype, corpus="sentences", samples=25)
    return folder


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def assert_untouched(model: EditableModel, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())


def settings_of(method: str) -> dict[str, object]:
    """`WIDE` in the settings that the method has."""
    if method == "rome":
        return {**{name: value for name, value in WIDE.items() if name != "covariance_weight"}, "layers": [1]}
    if method == "alphaedit":
        kept = {name: value for name, value in WIDE.items() if name != "covariance_weight"}
        return {**kept, "solve.threshold": 1e3, "solve.ridge": 1e-3}
    if method == "two_site":
        return {**WIDE, "layers": [1], **LATE, "late.layers": [2], "late.solve.covariance_weight": 0.5}
    return WIDE


def stepped(
    moments: Path,
    method: str = "memit",
    facts: Sequence[Fact] = FACTS,
    dtype: str = "float64",
    keep_in: Path | None = None,
    on_progress: Progress = silent,
    on_write: steps.OnWrite | None = None,
    **strategy: object,
) -> errata.Edit:
    request = EditRequest(
        facts,
        method,
        settings_of(method),
        contexts=CONTEXTS,
        covariance=moments / dtype,
        strategy=Strategy(**strategy),  # type: ignore[arg-type]
        keep_in=keep_in,
    )
    return prepare(tiny_model("gpt2", dtype), request).run(on_progress, on_write)


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
    valueless = replace(METHODS["memit"], settings=SpreadSettings)
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


# --- the guard -------------------------------------------------------------------------------------


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
        torch.testing.assert_close(delta.matrix, found.deltas[path].matrix, rtol=0, atol=1e-6)
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


def test_without_texts_the_guard_says_what_to_give() -> None:
    fact = Fact("The capital of {} is", "Valdoria", "Kestrel")
    with pytest.raises(errors.FactError, match="no texts"):
        Watch(Guard(), tiny_model("gpt2"), [fact], 0)


@pytest.mark.parametrize("wrong", [{"max_perplexity_ratio": 1.0}, {"min_accuracy_ratio": 1.0}])
def test_bounds_without_a_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(errors.SettingsError, match="guard"):
        Guard(**wrong)


# --- the parts -------------------------------------------------------------------------------------


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


def test_targets_are_measured_as_one_would_by_hand(moments: Path) -> None:
    model = tiny_model("gpt2", "float64")
    easy = (Fact("Today I see {}", "Valdoria", "was"), Fact("{}", "Jonas Whitlock", "is"))
    with stepped(moments, facts=easy, iterations=4, stop="never").applied(model):
        found = measure_targets(model, (*FACTS, *easy), CONTEXTS)
        for index, fact in enumerate((*FACTS, *easy)):
            surprisals, on_top = [], True
            for context in CONTEXTS:
                row = plain_row(model, context, fact.prompt, fact.subject, fact.target_new)
                with torch.no_grad():
                    log_p = run(model, row.ids).log_softmax(dim=-1)[-len(row.target) :]
                surprisals.append(-float(log_p[range(len(row.target)), row.target].mean()))
                on_top = on_top and log_p.argmax(dim=-1).tolist() == row.target
            assert float(found.nll[index]) == pytest.approx(sum(surprisals) / len(surprisals), rel=1e-9)
            assert bool(found.on_top[index]) == on_top
    assert found.on_top.any()
    assert not found.on_top.all()


def test_a_write_is_taken_back_bit_for_bit(moments: Path) -> None:
    model = tiny_model("gpt2", "float32")
    untouched, writer = weights_of(model), Writer(model)
    deltas = stepped(moments, dtype="float32").deltas
    with writer.put_back():
        writer.write(deltas)
        writer.write(deltas)
        good = weights_of(model)
        writer.write(deltas)
        with writer.unedited():
            assert_untouched(model, untouched)
        writer.take_back()
        assert_untouched(model, good)
        writer.take_back(2)
        assert_untouched(model, untouched)
    assert not writer.total()


def test_texts_of_one_token_have_no_perplexity() -> None:
    with pytest.raises(ValueError, match="two tokens"):
        text_perplexity(tiny_model("gpt2"), ["a", "b"])


def test_a_sum_of_deltas_writes_what_they_write() -> None:
    torch.manual_seed(0)
    site = tiny_model("gpt2", "float64").site("ffn", 1)
    small = [Delta(torch.randn(site.d_out, 2), torch.randn(2, site.d_in)) for _ in range(3)]
    wide = Delta(None, None, torch.randn(site.d_out, site.d_in))
    assert sum_deltas(small).rank == 6
    for parts in (small, [*small, wide], small * 5):
        added = torch.stack([part.matrix for part in parts]).sum(dim=0)
        torch.testing.assert_close(sum_deltas(parts).matrix, added, rtol=0, atol=1e-5)
