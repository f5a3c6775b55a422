"""What is proposed: planned points first, then the sampler's; a function of the history and the seed."""

import pytest

from errata.calibrate.objective import Measures
from errata.calibrate.request import Trial
from errata.calibrate.search import BASE, Search
from errata.calibrate.space import SHARES, STAGES, TRIALS, Space, Stage

pytest.importorskip("optuna")

SETTINGS = {
    "early.layers": (4, 5, 6, 7, 8),
    "early.values.clamp": 0.75,
    "early.values.learning_rate": 0.5,
    "early.values.preserve": "none",
    "early.values.preserve_weight": 3.0,
    "early.solve.covariance_weight": 15000.0,
}
SPACE = Space(SETTINGS, 30, {"early.layers": "several"})


def trial(number: int, stage: str, settings: dict[str, object], score: float) -> Trial:
    return Trial(number, stage, settings, Measures(0.0, 0.0, 0.0, 0.0, 1.0), score, 1.0)


def history(search: Search, stages: tuple[Stage, ...], upto: int = 99) -> list[Trial]:
    """A search to its end, where a gentler write into later layers is better."""
    trials = [trial(0, BASE, {}, -14000.0)]
    for stage in stages:
        while len(trials) < upto and (proposal := search.propose(trials, stage)) is not None:
            weight = float(str(proposal.settings.get("early.solve.covariance_weight", 15000.0)))
            trials.append(trial(len(trials), stage, dict(proposal.settings), -abs(weight - 1000)))
    return trials


def test_stages_have_their_room_and_no_point_is_tried_twice() -> None:
    trials = history(Search(SPACE, 0), STAGES)
    for stage in STAGES:
        assert sum(one.stage == stage for one in trials) <= TRIALS[stage]
    settings = [dict(one.settings) for one in trials]
    assert all(one not in settings[:number] for number, one in enumerate(settings))
    strengths = [
        one.settings.get("early.solve.covariance_weight") for one in trials if one.stage == "strength"
    ]
    assert strengths[0] == 1500.0
    assert (
        abs(
            float(str(max(trials, key=lambda one: one.score).settings["early.solve.covariance_weight"]))
            - 1000
        )
        < 600
    )


def test_a_search_that_goes_on_proposes_the_same() -> None:
    search = Search(SPACE, 3)
    whole = history(search, STAGES)
    for stop in (3, 9, 20):
        stage = next(stage for stage in STAGES if stage == whole[stop].stage)
        proposal = Search(SPACE, 3).propose(whole[:stop], stage)
        assert proposal is not None
        assert proposal.settings == whole[stop].settings


def test_values_stand_elsewhere_in_one_stage_and_are_shared_by_the_others() -> None:
    trials = history(Search(SPACE, 0), STAGES)
    lasts = {
        stage: {
            str(one.settings.get("early.layers", "4-8")).rpartition("-")[2]
            for one in trials
            if one.stage == stage
        }
        for stage in STAGES
    }
    assert len(lasts["layers"]) >= 4
    assert all(len(lasts[stage]) == 1 for stage in ("strength", "values", "write"))


def test_what_is_fixed_or_without_effect_is_not_searched() -> None:
    fixed = Space(
        SETTINGS, 30, {"early.layers": "several"}, frozenset({"early.values.clamp", "early.layers"})
    )
    names = {knob.name for stage in STAGES for knob in fixed.stage(stage, SETTINGS).knobs}
    assert names == {"early.solve.covariance_weight", "early.values.learning_rate"}


def test_a_share_goes_before_a_weight() -> None:
    settings = {"solve.realised_share": 0.8, "solve.covariance_weight": None}
    stage = Space(settings, 30, {}).stage("strength", settings)
    assert [knob.name for knob in stage.knobs] == ["solve.realised_share"]
    assert [point["solve.realised_share"] for point in stage.planned] == list(SHARES)


def test_later_stages_stay_near_the_best_strength() -> None:
    share, weight = "early.solve.realised_share", "late.solve.covariance_weight"
    settings = {share: 0.8, weight: 1000.0, "early.values.clamp": 0.75}
    space = Space(settings, 30, {})
    ranges = {
        stage: {
            knob.name: (knob.low, knob.high) for knob in space.stage(stage, {**settings, weight: 100.0}).knobs
        }
        for stage in ("strength", "values")
    }
    assert (ranges["strength"][share], ranges["strength"][weight]) == ((0.1, 0.99), (1.0, 30000.0))
    assert (ranges["values"][share], ranges["values"][weight]) == ((0.55, 0.99), (10.0, 1000.0))


@pytest.mark.parametrize("trials", [1, 3, 4, 10, 33])
def test_few_trials_are_shared_out_over_the_stages(trials: int) -> None:
    search = Search(SPACE, 0, trials)
    assert sum(search.room(stage) for stage in STAGES) == trials
