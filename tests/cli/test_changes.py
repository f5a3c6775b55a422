"""What an edit does to weights, in numbers: of every method's edit, whatever weights it changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import errata
from cli_world import World, answer, flat, run
from edit_cases import fresh, random_edit
from errata.cli.changes import apply_and_compare, changes_of
from errata.cli.tables import Change, change_table
from errata.edits.deltas import Delta
from errata.errors import WrongModel
from families import FACTS

BLOCK = {"layers": [1], "weights": "block", "epochs": 1}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_fine_tuned_block_has_the_norm_of_each_of_its_weights(family: str) -> None:
    model = fresh(family)
    edit = errata.edit(model, FACTS, "finetune", BLOCK)
    changes = changes_of(edit, model)
    assert {change.path for change in changes} == edit.deltas.keys()
    assert len(changes) > 4
    for change in changes:
        site = model.site_at(change.path)
        assert change.norm == pytest.approx(float(edit.deltas[change.path].matrix.double().norm()))
        assert change.weight_norm == pytest.approx(float(site.weight.double().norm()))


def test_an_edit_of_every_map_of_the_ffn_has_their_norms() -> None:
    """As MEND makes it."""
    model = fresh("llama")
    sites = [model.site_at(path) for path in model.architecture.ffn_paths(2)]
    deltas = {site.path: Delta(torch.randn(site.d_out, 2), torch.randn(2, site.d_in)) for site in sites}
    edit = replace(random_edit(model), deltas=deltas)
    assert [change.weight_norm for change in changes_of(edit, model)] == [
        pytest.approx(float(site.weight.double().norm())) for site in sites
    ]
    assert [change.weight_norm for change in changes_of(edit)] == [None] * len(sites)
    assert apply_and_compare(model, edit) < 1e-6
    with pytest.raises(WrongModel, match="does not have"):
        changes_of(edit, fresh("gpt2"))


def test_the_table_says_how_large_a_change_is_beside_its_weight(world: World, tmp_path: Path) -> None:
    tuned = ("--method", "finetune", *(f"--set={name}={_word(value)}" for name, value in BLOCK.items()))
    words = ("edit", world.model, "--facts", world.facts, *tuned)
    assert "Of the weight's" in flat(run(*words, "--output", tmp_path / "one").stdout)
    changes: Any = answer(*words, "--output", tmp_path / "two")["changes"]
    assert len(changes) > 4
    assert all(change["weight_norm"] is not None for change in changes.values())


def test_a_weight_of_nothing_but_zeros_has_no_share() -> None:
    sized = Change("map", (2, 2), 1, 1.0, 4.0)
    zeros = Change("bias", (2, 1), 1, 1.0, 0.0)
    cells = [list(column.cells) for column in change_table([sized, zeros]).columns]
    assert cells[-1] == ["25.00%", "-"]
    assert len(change_table([replace(sized, weight_norm=None)]).columns) == len(cells) - 1


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
