"""The edit looks at itself: what is asked, what is written again and taken back, and what is said of the rest."""

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import errata
from errata.errors import SettingsError
from errata.facts.fact import Fact
from errata.planning.plan import Plan, prepare
from errata.planning.request import EditRequest
from errata.settings.schema import flatten
from errata.strategies import closing
from errata.strategies.closing import raised
from errata.strategies.guard import Guard, Health, Watch
from errata.strategies.steps import Strategy
from families import CONTEXTS, FACTS, tiny_model
from moments_cases import Moments

WEAK: dict[str, object] = {
    "layers": [1, 2],
    "values.steps": 60,
    "values.optimizer": "adam",
    "values.learning_rate": 0.5,
    "values.clamp": 10.0,
    "values.decay": 0.0,
    "values.kl_weight": 0.0,
    "values.least_probability": "none",
    "solve.realised_share": 0.1,
}
EASY = (Fact("Today I see {}", "Valdoria", "was"), Fact("Today I see {}", "Orin Vasker", "the"))
"""Targets of one token right behind the subject, which even a random model can learn."""


def plan_of(folder: Path, facts: int = 2, method: str = "memit", **settings: object) -> Plan:
    given = {**WEAK, **{name.replace("__", "."): value for name, value in settings.items()}}
    request = EditRequest(EASY[:facts], method, given, contexts=CONTEXTS, covariance=folder, check=True)
    return prepare(tiny_model("gpt2"), request)


@pytest.fixture
def folder(moments: Moments) -> Path:
    return moments(tiny_model("gpt2"))


@dataclass(frozen=True)
class Said:
    """An answer, of which only this is asked."""

    correct: bool


class Strict(Watch):
    """A guard that is content with the first write alone."""

    def __init__(self, *_: object) -> None:
        self.complaints = iter(["", *["too much is lost"] * 9])

    def measure(self) -> Health:
        return Health(1.0, 1.0)

    def complaint(self, now: Health) -> str:
        return next(self.complaints)


def weights(plan: Plan) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in plan.model.model.parameters()]


def test_what_is_missing_is_written_again_and_the_model_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "BOUNDS", Guard(max_perplexity_ratio=1e6, min_accuracy_ratio=0.0))
    plan = plan_of(folder)
    before = weights(plan)
    plain = replace(plan, check=False).run()
    edit = plan.run()
    assert all(torch.equal(one, two) for one, two in zip(before, weights(plan), strict=True))
    with plain.applied(plan.model):
        carried = closing.measure_targets(plan.model, EASY, CONTEXTS).on_top
    assert not bool(carried.all()), "the case is of a write that is too weak"
    kept = [record for record in edit.history if record["kept"]]
    assert len(kept) > 1, edit.origin.strategy
    with edit.applied(plan.model):
        now = closing.measure_targets(plan.model, EASY, CONTEXTS)
    assert [one.behind_contexts for one in edit.checks] == now.on_top.tolist()
    assert int(now.on_top.sum()) > int(carried.sum())
    assert edit.origin.strategy["further_writes"] == len(kept) - 1


def test_an_edit_that_holds_is_the_plain_one_to_the_last_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(folder)
    monkeypatch.setattr(closing, "ROUNDS", 0)
    plain, checked = replace(plan, check=False).run(), plan.run()
    for path, delta in plain.deltas.items():
        assert torch.equal(delta.matrix, checked.deltas[path].matrix)
    assert (checked.history, dict(checked.origin.strategy)) == ((), {})
    assert plain.checks == ()
    assert len(checked.checks) == 2


def test_the_bounds_take_a_further_write_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "Watch", Strict)
    plan = plan_of(folder)
    plain, edit = replace(plan, check=False).run(), plan.run()
    assert [record["kept"] for record in edit.history] == [True, False, False]
    assert edit.origin.strategy["further_writes"] == 0
    assert edit.origin.strategy["ended_by"] == "further write 2 was taken back: too much is lost"
    for path, delta in plain.deltas.items():
        assert torch.equal(delta.matrix, edit.deltas[path].matrix)
    missing = [one for one in edit.checks if not one.holds]
    assert missing
    assert all("the change that its value asks for is in the weights" in one.reason for one in missing)
    assert all(one.realized is not None for one in missing)


def test_a_value_that_is_not_found_is_left_out_with_the_reason(folder: Path) -> None:
    plan = plan_of(folder, values__steps=2, values__least_probability=0.999)
    with pytest.raises(errata.errors.NoFactsLeft, match="no value was found that makes the model say it"):
        plan.run()


def test_another_fact_that_is_said_instead_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "ROUNDS", 0)
    weak = {**WEAK, "solve.realised_share": 0.01}
    request = EditRequest(EASY, "memit", weak, contexts=CONTEXTS, covariance=folder, check=True)
    plan = prepare(tiny_model("gpt2"), request)
    asked = plan.run().checks
    assert not any(one.said for one in asked)
    assert all(one.reason.startswith("not realized") for one in asked)
    for answers in (True, False):  # whether the model says the other fact's target
        monkeypatch.setattr(
            closing, "measure", lambda _model, _plan, said=answers: defaultdict(lambda: Said(said))
        )
        reasons = [one.reason for one in plan.run().checks]
        assert all(
            one.startswith("contradicted by another fact: the model says") == answers for one in reasons
        )


def test_the_raised_settings_have_a_smaller_lambda(folder: Path) -> None:
    plan = plan_of(folder)
    assert flatten(raised(plan.method.settings, plan.settings))["solve.realised_share"] == pytest.approx(
        4 * (0.1 / 0.9) / (1 + 4 * (0.1 / 0.9))
    )
    request = EditRequest(FACTS, "memit", {"layers": [1], "solve.covariance_weight": 8.0})
    weighted = prepare(plan.model, request)
    assert flatten(raised(weighted.method.settings, weighted.settings))["solve.covariance_weight"] == 2.0


def test_when_it_is_the_default() -> None:
    model = tiny_model("gpt2")
    plain: dict[str, object] = {"layers": [1, 2]}
    assert prepare(model, EditRequest(FACTS, "memit", plain)).check
    plan = prepare(model, EditRequest(FACTS, "two_site", {}))
    assert (plan.settings.early.values.least_probability, plan.settings.late.values.least_probability) == (
        None,
        0.5,
    )
    assert "once more" in plan.strategy_words
    for request in (
        EditRequest(FACTS, "memit", plain, check=False),
        EditRequest(FACTS, "memit", plain, strategy=Strategy(iterations=2)),
        EditRequest(FACTS, "memit", plain, preset="llama-2-iterative"),
        EditRequest(FACTS, "memit", {**plain, "values.steps": 3}),
        EditRequest(FACTS, "finetune"),
    ):
        other = prepare(model, request)
        assert not other.check
        assert flatten(other.settings).get("values.least_probability") is None
    with pytest.raises(SettingsError, match="leave the iterations out"):
        EditRequest(FACTS, "memit", check=True, strategy=Strategy(iterations=2))
    with pytest.raises(SettingsError, match="for methods that optimize values"):
        EditRequest(FACTS, "finetune", check=True)


def test_the_checks_are_kept_with_the_edit(folder: Path, tmp_path: Path) -> None:
    edit = plan_of(folder, facts=2).run()
    edit.save(tmp_path / "edit")
    assert errata.load_edit(tmp_path / "edit").checks == edit.checks
    about = json.loads((tmp_path / "edit" / "edit.json").read_text())
    del about["checks"], about["realized"]
    (tmp_path / "edit" / "edit.json").write_text(json.dumps(about))
    assert errata.load_edit(tmp_path / "edit").checks == ()


def test_facts_without_neighbors_are_watched_on_plain_sentences(folder: Path) -> None:
    bare = [Fact(one.prompt, one.subject, one.target_new) for one in FACTS[:2]]
    request = EditRequest(bare, "memit", WEAK, contexts=CONTEXTS, covariance=folder, check=True)
    assert len(prepare(tiny_model("gpt2"), request).run().checks) == 2
