"""A value must make the model say its target: bounded tries with more room, and what becomes of those that fail."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from errata.errors import NoFactsLeft, SettingsError
from errata.facts.fact import Fact
from errata.methods.base import SiteSettings
from errata.methods.registry import METHODS, settings_for
from errata.methods.runs import Run
from errata.runtime.progress import silent
from errata.settings.method_presets import load_presets
from errata.values.descent import Outcome
from errata.values.ladder import LADDER, on_rung
from errata.values.settings import ValueSettings
from errata.values.store import TargetStore
from errata.values.targets import optimize_targets
from families import CONTEXTS, FACTS, tiny_model
from moments_cases import Moments

SHORT: dict[str, object] = {
    "layers": [1, 2],
    "values.steps": 4,
    "values.optimizer": "adam",
    "values.learning_rate": 0.5,
    "values.clamp": 1.0,
}


EASY = Fact("Today I see {}", "Valdoria", "was")
"""Its target is one token right behind the subject, which even a random model can learn."""


def site_of(**values: object) -> SiteSettings:
    given = {**SHORT, **{f"values.{name}": value for name, value in values.items()}}
    return settings_for(tiny_model("gpt2"), "memit", given)[0]


def assert_same(some: Sequence[Outcome], others: Sequence[Outcome]) -> None:
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.delta["block"], other.delta["block"])


def reached(**values: object) -> list[float]:
    found = optimize_targets(tiny_model("gpt2"), FACTS[:3], CONTEXTS, site_of(**values))
    return [one.probability for one in found.outcomes]


def test_without_a_bound_nothing_is_tried_again() -> None:
    found = optimize_targets(tiny_model("gpt2"), FACTS[:3], CONTEXTS, site_of())
    assert [(one.rung, one.found) for one in found.outcomes] == [(0, True)] * 3
    assert found.failed == []


def test_those_that_fall_short_get_more_room_and_the_others_stay() -> None:
    model, plain = tiny_model("gpt2"), reached()
    least = sorted(plain)[1]
    found = optimize_targets(model, FACTS[:3], CONTEXTS, site_of(least_probability=least))
    for before, one in zip(plain, found.outcomes, strict=True):
        assert (one.rung == 0) == (before >= least)
        if one.rung:
            assert one.probability > before
            alone = optimize_targets(
                model, [FACTS[plain.index(before)]], CONTEXTS, on_rung(site_of(), LADDER[one.rung - 1])
            )
            assert one.probability == pytest.approx(alone.outcomes[0].probability, rel=1e-3)


def test_a_value_that_is_never_found_is_left_out_with_its_probability() -> None:
    model = tiny_model("gpt2")
    found = optimize_targets(model, FACTS[:2], CONTEXTS, site_of(least_probability=0.999999))
    assert found.failed == [0, 1]
    assert found.reasons[0].startswith(
        "no value was found that makes the model say it: it comes to a probability of"
    )
    written = optimize_targets(
        model, FACTS[:2], CONTEXTS, site_of(least_probability=0.999999, write_unfound=True)
    )
    assert written.failed == []
    assert all(
        torch.equal(one.delta["block"], two.delta["block"])
        for one, two in zip(found.outcomes, written.outcomes, strict=True)
    )


def test_known_values_are_taken_as_they_are() -> None:
    model, site = tiny_model("gpt2"), site_of(least_probability=0.999999)
    known = optimize_targets(model, FACTS[:1], CONTEXTS, site_of()).outcomes
    found = optimize_targets(model, FACTS[:2], CONTEXTS, site, known={0: known[0]})
    assert found.failed == [1]
    assert found.outcomes[0] is known[0]


def test_what_a_ladder_found_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, site = tiny_model("gpt2"), site_of(least_probability=0.999999)
    keeper = TargetStore.of(tmp_path, model, CONTEXTS, site, False)
    first = optimize_targets(model, FACTS[:2], CONTEXTS, site, keeper=keeper)
    monkeypatch.setattr("errata.values.targets.optimize_batch", lambda *_: pytest.fail("it is kept"))
    again = optimize_targets(model, FACTS[:2], CONTEXTS, site, keeper=keeper)
    assert all(
        torch.equal(one.delta["block"], two.delta["block"])
        for one, two in zip(first.outcomes, again.outcomes, strict=True)
    )


@pytest.mark.parametrize("method", ["memit", "pmet", "alphaedit", "rome"])
def test_every_method_leaves_such_facts_out(method: str, moments: Moments) -> None:
    model = tiny_model("gpt2")
    own = {**SHORT, "layers": [1], "values.least_probability": 0.999999}
    values, preset = settings_for(model, method, own)
    run = Run(model, METHODS[method], values, preset, CONTEXTS, moments(model), "", 0, None, silent)
    with pytest.raises(NoFactsLeft, match="no value was found that makes the model say it"):
        run.changes(FACTS[:2])


def test_a_relative_rate_is_that_of_the_clean_values_size() -> None:
    """With the rate that the scale comes to for a fact, the same value."""
    model = tiny_model("gpt2", "float64")
    given = {name: value for name, value in SHORT.items() if name != "values.learning_rate"}
    site = settings_for(model, "memit", {**given, "values.learning_rate_scale": 0.3})[0]
    assert site.values.learning_rate is None
    found = optimize_targets(model, FACTS[:2], CONTEXTS, site).outcomes
    for fact, one in zip(FACTS, found, strict=False):
        rate = 0.3 * float(one.initial["block"].square().mean().sqrt())
        alone = settings_for(model, "memit", {**given, "values.learning_rate": rate})[0]
        (other,) = optimize_targets(model, [fact], CONTEXTS, alone).outcomes
        torch.testing.assert_close(one.delta["block"], other.delta["block"], rtol=1e-6, atol=1e-9)


def test_bounds_and_rates_without_a_sense_are_refused() -> None:
    values = load_presets("memit").defaults
    base = {
        name.removeprefix("values."): value for name, value in values.items() if name.startswith("values.")
    }
    own = {**base, "optimize": ("block",)}
    with pytest.raises(SettingsError, match="'least_probability' must lie between 0 and 1"):
        ValueSettings(**{**own, "least_probability": 1.0})
    with pytest.raises(SettingsError, match="exactly one must have a value"):
        ValueSettings(**{**own, "learning_rate": None})
    with pytest.raises(SettingsError, match="exactly one must have a value"):
        ValueSettings(**{**own, "learning_rate_scale": 0.1})


def test_pmet_does_not_stop_content_before_the_bound() -> None:
    """Its rule ends a fact once the target is on top with little divergence, however unlikely it still is."""
    model = tiny_model("gpt2")
    easy = {
        **SHORT,
        "values.steps": 60,
        "values.learning_rate": 0.5,
        "values.kl_weight": 0.0,
        "values.decay": 0.0,
        "values.clamp": 8.0,
    }
    plain = settings_for(model, "pmet", easy)[0]
    early = optimize_targets(model, [EASY], CONTEXTS, plain, relax=True).outcomes[0]
    assert early.trace.stop == "argmax and KL"
    least = (1 + early.probability) / 2
    bound = settings_for(model, "pmet", {**easy, "values.least_probability": least})[0]
    later = optimize_targets(model, [EASY], CONTEXTS, bound, relax=True).outcomes[0]
    assert len(later.trace.loss) > len(early.trace.loss)
    assert later.probability > early.probability
