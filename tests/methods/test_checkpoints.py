"""A run that was killed goes on from its checkpoint to the same bits, and no other run does."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from errata.edits.deltas import Delta
from errata.facts.fact import Fact
from errata.models.model import EditableModel
from errata.planning.plan import edit
from families import FACTS, tiny_model
from finetune_cases import assert_untouched, equal, weights_of
from tiny import fresh_model

LONG: dict[str, object] = {"layers": [2], "weights": "block", "batch_size": 3, "epochs": 4}


def killed(model: EditableModel, folder: Path, after: int, **given: object) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    before = weights_of(model)
    with pytest.raises(KeyboardInterrupt):
        edit(model, FACTS, "finetune", {**LONG, **given}, keep_in=folder, on_progress=kill)
    assert_untouched(model, before)


def resumed(
    model: EditableModel, folder: Path, facts: Sequence[Fact] = FACTS, seed: int = 0, **given: object
) -> tuple[dict[str, Delta], list[int]]:
    told: list[int] = []
    found = edit(
        model,
        facts,
        "finetune",
        {**LONG, **given},
        seed=seed,
        keep_in=folder,
        on_progress=lambda stage, done, total: told.append(done),
    )
    return dict(found.deltas), told


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("after", [1, 3, 4])
def test_a_killed_run_goes_on_to_the_same_bits(after: int, dtype: str, tmp_path: Path) -> None:
    model = tiny_model("gpt2", dtype)
    whole = dict(edit(model, FACTS, "finetune", LONG).deltas)
    killed(model, tmp_path, after)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    found, told = resumed(model, tmp_path)
    assert equal(found, whole)
    assert told == list(range(after + 1, 5))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-4},
        {"end_of_text": False},
        {"seed": 1},
        {"facts": FACTS[:3]},
    ],
    ids=str,
)
def test_another_run_does_not_go_on_from_it(change: dict[str, object], tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    killed(model, tmp_path, 2)
    _, told = resumed(model, tmp_path, **change)  # type: ignore[arg-type]
    assert told == [1, 2, 3, 4]
    _, told = resumed(model, tmp_path)
    assert told == [3, 4]


def test_weights_that_differ_by_a_hair_do_not_go_on_from_it(tmp_path: Path) -> None:
    model = fresh_model()
    killed(model, tmp_path, 2)
    fingerprint = model.fingerprint
    with torch.no_grad():
        model.site("ffn", 2).weight[1, 1] += 1e-6
    assert model.fingerprint == fingerprint
    assert resumed(model, tmp_path)[1] == [1, 2, 3, 4]


def test_a_damaged_checkpoint_counts_as_none(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    killed(model, tmp_path, 2)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    found, told = resumed(model, tmp_path)
    assert told == [1, 2, 3, 4]
    assert equal(found, dict(edit(model, FACTS, "finetune", LONG).deltas))
