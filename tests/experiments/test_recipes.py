"""Recipes: every table and figure of the papers, and the papers' own numbers."""

import json
import math
from pathlib import Path

import pytest

from errata.errors import UnknownSetting
from errata.experiments.cells import Request
from errata.experiments.columns import OTHERS
from errata.experiments.plan import plan
from errata.experiments.recipes import load_recipe, recipe_names
from errata.methods.registry import method_named
from errata.report.figures import DRAWERS, TITLES
from errata.results.scores import LABELS
from errata.settings.method_presets import load_presets
from errata.settings.schema import build
from errata.strategies.steps import Strategy

WANTED = {
    *(f"pmet-{place}" for place in ("table-1", "table-2", "table-3", "figure-2", "figure-3", "figure-4")),
    *(f"under-over-edit-table-{number}" for number in (1, 2, 3, 4, 6, 7, 8, 9, 10)),
    *(f"under-over-edit-figure-{number}" for number in (3, 4)),
}


def values(
    recipe: str, model: str, row: str, step: int | None = None
) -> dict[str, tuple[float, float | None]]:
    """What the paper printed in one line."""
    lines = load_recipe(recipe).printed
    found = [line for line in lines if (line.model, line.row, line.step) == (model, row, step)]
    return dict(found[-1].values)


def test_every_table_and_figure_has_a_recipe() -> None:
    assert set(recipe_names()) == WANTED


def test_an_unknown_recipe_is_refused_with_a_proposal() -> None:
    with pytest.raises(UnknownSetting, match="Did you mean 'pmet-figure-3'"):
        load_recipe("pmet-figure-33")


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_recipe_names_only_what_there_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert set(recipe.columns) <= {*LABELS, *OTHERS}
    assert set(recipe.figures) <= set(DRAWERS) == set(TITLES)
    for row in recipe.rows:
        if row.method is None:
            continue
        presets = load_presets(row.method)
        for model in ("almanac", *recipe.published.models):
            preset = presets.for_model(model, 28, row.preset_for(model))
            build(method_named(row.method).settings, preset.values, row.settings)
        Strategy(**row.strategy)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(WANTED))
def test_what_the_paper_printed_belongs_to_a_row_and_a_column(name: str) -> None:
    recipe = load_recipe(name)
    rows = {row.name for row in recipe.rows} | {"Unedited"}
    for line in recipe.printed:
        assert line.row in rows
        assert line.data in recipe.data
        assert line.id in recipe.published.models
        assert set(line.values) <= set(recipe.columns)
        assert all(math.isfinite(mean) for mean, _ in line.values.values())


@pytest.mark.parametrize("name", sorted(WANTED))
def test_printed_scores_are_the_harmonic_means_of_printed_numbers(name: str) -> None:
    for line in load_recipe(name).printed:
        for kind in ("success", "accuracy"):
            parts = [
                line.values.get(f"{word}_{kind}") for word in ("efficacy", "generalization", "specificity")
            ]
            score = line.values.get(f"score_{kind}")
            if score is None or any(part is None or part[0] < 20 for part in parts) or line.edits < 10000:
                continue  # paper 2 prints means over trials, which are no harmonic means of means
            harmonic = 3 / sum(1 / part[0] for part in parts if part is not None)
            assert score[0] == pytest.approx(harmonic, abs=0.35), (name, line)


def test_known_numbers_stand_in_their_places() -> None:
    assert values("pmet-table-1", "GPT-J (6B)", "PMET")["generalization_success"] == (92.8, 0.4)
    assert values("pmet-table-2", "GPT-J (6B)", "ROME")["specificity_token_accuracy"] == (0.9, 0.1)
    assert values("under-over-edit-table-6", "GPT-2 XL (1.5B)", "PMET", 10)["me_ppl_50"] == (63.92, None)
    assert values("under-over-edit-table-7", "Llama-2 (7B)", "MEMIT", 1)["efficacy_accuracy"] == (79.5, None)
    assert values("under-over-edit-table-8", "GPT-2 XL (1.5B)", "NA_PMET", 1)["score_success"] == (50.0, None)
    assert values("under-over-edit-table-9", "GPT-2 XL (1.5B)", "NAP_MEMIT", 5)["me_ppl_50"] == (65.98, None)
    assert values("under-over-edit-table-10", "GPT-J (6B)", "PMET", 3)["delta_p"] == (0.02, None)


@pytest.mark.parametrize(("part", "whole"), [("1", "6"), ("2", "8"), ("3", "9")])
def test_the_second_papers_short_tables_agree_with_its_long_ones(part: str, whole: str) -> None:
    long = {
        (line.model, line.row, line.step): line.values
        for line in load_recipe(f"under-over-edit-table-{whole}").printed
    }
    for line in load_recipe(f"under-over-edit-table-{part}").printed:
        for column, value in line.values.items():
            assert long[line.model, line.row, line.step][column] == value, (line, column)


def test_the_numbers_of_edits_of_figure_3_are_those_of_the_paper() -> None:
    counts = [round(math.exp(math.log(10000) * i / 16)) for i in range(17)]
    recipe = load_recipe("pmet-figure-3")
    assert list(recipe.published.edits) == counts
    assert list(recipe.sizes.edits) == [count for count in counts if count <= 100]


def test_fewer_edits_keep_the_smaller_counts() -> None:
    assert load_recipe("pmet-figure-3").resized(10).sizes.edits == (1, 2, 3, 6, 10)
    assert load_recipe("pmet-table-1").resized(10).sizes.edits == (10,)


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_recipe_takes_minutes_on_the_embedded_model(name: str) -> None:
    planned = plan(Request(load_recipe(name)))
    assert planned.seconds is not None
    assert planned.seconds < 15 * 60


def test_other_models_get_the_papers_sizes_and_presets() -> None:
    request = Request(load_recipe("pmet-table-2"), "EleutherAI/gpt-j-6b")
    pmet = next(cell for cell in request.cells if cell.row.method == "pmet")
    assert (pmet.edits, pmet.data, pmet.preset) == (10000, "zsre", "gpt-j-zsre")
    planned = plan(request)
    assert planned.memory is not None
    assert planned.memory > 12e9
    assert "estimate" in planned.basis


def test_nobody_knows_how_long_a_model_without_timings_takes() -> None:
    planned = plan(Request(load_recipe("pmet-table-1"), "my-org/my-model"))
    assert planned.seconds is planned.memory is planned.disk is None
    assert "not known" in planned.basis


def test_what_changes_the_outcome_changes_the_name_of_a_cell() -> None:
    recipe = load_recipe("pmet-table-1")
    names = [cell.name for cell in Request(recipe).cells]
    assert len(set(names)) == len(names)
    for other in (Request(recipe, seed=1), Request(recipe.resized(5)), Request(recipe, "some/model")):
        assert not set(names) & {cell.name for cell in other.cells}


def test_cells_that_are_stored_already_are_found_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture holds the names that the cells had when settings were flat."""
    monkeypatch.setattr("errata.experiments.cells.version", lambda _: "0.1.0")
    file = Path(__file__).parents[1] / "fixtures" / "old-formats" / "cells.json"
    names: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))
    assert names.keys() == set(recipe_names())
    for recipe, cells in names.items():
        assert [cell.name for cell in Request(load_recipe(recipe)).cells] == cells, recipe
