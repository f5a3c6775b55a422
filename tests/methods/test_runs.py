"""A run of any method: a loss that is not a number, and a run that was killed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from errata import errors
from errata.edits.edit import load_edit
from errata.facts.fact import Fact
from errata.methods.registry import METHODS
from errata.passes import memory
from errata.planning.plan import edit
from errata.values import targets
from families import CONTEXTS, FACTS, tiny_model
from method_cases import CASES
from moments_cases import Moments
from poison import own_token, poisoned
from registry_cases import assert_identical, assert_untouched, weights_of
from tolerances import FORWARD, KEYS, assert_agree


def without_rows_beside(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """The facts as they were given: `two_site` adds other wordings and statements to preserve."""
    return tuple(replace(fact, edit_prompts=(), preserve_prompts=()) for fact in facts)


@pytest.mark.parametrize("method", METHODS)
def test_a_fact_whose_loss_is_not_a_number_is_left_out(
    method: str, moments: Moments, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    settings = CASES[method].given(model)
    before = weights_of(model)
    bad, others, folder = FACTS[3], FACTS[:3], moments(model)
    with poisoned(model, own_token(model, bad, others)):
        found = edit(
            model,
            (FACTS[0], bad, *FACTS[1:3]),
            method,
            settings,
            contexts=CONTEXTS,
            covariance=folder,
        )
        with pytest.raises(errors.NoFactsLeft, match="The loss of every fact was not a number"):
            edit(model, [bad], method, settings, contexts=CONTEXTS, covariance=folder)
    assert_untouched(model, before)
    assert without_rows_beside(found.facts) == others
    (dropped,) = found.dropped
    assert without_rows_beside([dropped.fact]) == (bad,)
    assert dropped.reason == "its loss was not a number (NaN or infinite)"
    assert "'{} was created by' about 'Zentro' was left out: its loss was not a number" in caplog.text
    without = edit(model, found.facts, method, settings, contexts=CONTEXTS, covariance=folder)
    for path, delta in without.deltas.items():
        assert_agree(found.deltas[path].matrix, delta.matrix, FORWARD, KEYS)
    found.save(tmp_path / "edit")
    assert load_edit(tmp_path / "edit").dropped == found.dropped


@pytest.mark.parametrize(
    ("method", "stage"), [(name, stage) for name, case in CASES.items() for stage in case.stages]
)
def test_a_killed_edit_goes_on_where_it_was(
    method: str, stage: str, moments: Moments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gemma3_text")
    before, settings = weights_of(model), CASES[method].given(model)
    monkeypatch.setattr(memory, "MOST", 1)
    uninterrupted = edit(model, FACTS, method, settings, contexts=CONTEXTS, covariance=moments(model))

    def kill(told: str, done: int, total: int) -> None:
        if told == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit(
            model,
            FACTS,
            method,
            settings,
            contexts=CONTEXTS,
            covariance=moments(model),
            keep_in=tmp_path,
            on_progress=kill,
        )
    assert_untouched(model, before)

    computed: list[int] = []
    optimize_batch = targets.optimize_batch

    def counted(model, batch, *rest):  # type: ignore[no-untyped-def]
        computed.append(1)
        return optimize_batch(model, batch, *rest)

    monkeypatch.setattr(targets, "optimize_batch", counted)
    told: list[tuple[str, int, int]] = []
    again = edit(
        model,
        FACTS,
        method,
        settings,
        contexts=CONTEXTS,
        covariance=moments(model),
        keep_in=tmp_path,
        on_progress=lambda *words: told.append(words),
    )
    assert len(computed) == CASES[method].stages[stage][1]
    assert_identical(again, uninterrupted)
    for name, (units, _) in CASES[method].stages.items():
        assert [words for words in told if words[0] == name] == [(name, n + 1, units) for n in range(units)]
