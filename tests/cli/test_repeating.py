"""`errata edit` with iterations, batches and a guard, and what `errata show` tells of them."""

import io
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

import errata
from cli_world import World, answer, edit, failed, flat, run
from errata.cli.repeating import history_table


def test_iterations_are_shown_and_kept(world: World, tmp_path: Path) -> None:
    done = run(*edit(world, tmp_path / "edit", "--iterations", "3", "--stop", "never"))
    assert done.exit_code == 0, done.output
    assert "Under-" in done.stdout
    found = errata.load_edit(tmp_path / "edit")
    assert [record["iteration"] for record in found.history] == [1, 2, 3]
    assert (found.origin.strategy["iterations"], found.origin.strategy["stop"]) == (3, "never")
    shown = flat(run("show", tmp_path / "edit").stdout)
    assert "iterations=3" in shown
    assert "Edited" in shown


def test_batches_in_json(world: World, tmp_path: Path) -> None:
    told = answer(*edit(world, tmp_path / "edit", "--batch-size", "3"))
    assert [write["facts"] for write in told["history"]] == [3, 1]  # type: ignore[attr-defined]
    assert told["strategy"]["batch_size"] == 3  # type: ignore[index]


def test_a_guard_reads_its_texts(world: World, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("The capital of Valdoria is Kestrel.\n\nOrin Vasker plays the harp.\n", encoding="utf-8")
    words = ("--guard", "--guard-perplexity", "1e6", "--guard-accuracy", "0", "--guard-texts", texts)
    assert run(*edit(world, tmp_path / "edit", *words)).exit_code == 0
    (record,) = errata.load_edit(tmp_path / "edit").history
    assert record["perplexity"] > 1  # type: ignore[operator]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--stop", "soon"), "no stop rule 'soon'"),
        (("--guard", "--guard-perplexity", "0.5"), "must be above 1"),
        (("--guard", "--guard-texts", "nowhere.txt"), "cannot be read from nowhere.txt"),
        (("--guard-texts", "nowhere.txt"), "add --guard"),
        (("--guard-perplexity", "5"), "add --guard"),
        (("--guard-accuracy", "0.9"), "add --guard"),
        (("--stop", "never"), "--iterations 10"),
        (("--epsilon", "0.1"), "--iterations 10"),
        (("--iterations", "0"), "--iterations"),
        (("--keep-best",), "--keep-best is about iterations"),
        (("--only-underedited",), "--only-underedited is about iterations"),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[str, ...], message: str, world: World, tmp_path: Path
) -> None:
    assert message in failed(*edit(world, tmp_path / "edit", *words))
    assert not (tmp_path / "edit").exists()


def test_a_first_write_beyond_the_bounds_leaves_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from errata.strategies.guard import Health, Watch

    healths = iter([Health(2.0, 1.0), Health(200.0, 1.0)])
    monkeypatch.setattr(Watch, "measure", lambda _: next(healths))
    texts = tmp_path / "texts.txt"
    texts.write_text("The capital of Valdoria is Kestrel.\n", encoding="utf-8")
    said = failed(*edit(world, tmp_path / "edit", "--guard", "--guard-texts", texts))
    assert "rose from 2 to 200" in said
    assert not (tmp_path / "edit").exists()


def test_the_table_of_writes_fits_a_hundred_columns() -> None:
    record: dict[str, object] = {
        "write": 12,
        "batch": 10,
        "iteration": 10,
        "facts": 1000,
        "optimised": 999,
        "p_optimised": 1.0123456,
        "p_spread": 12.3456,
        "underedited": 100,
        "update_norm": 1234.5678,
        "perplexity": 12.345678,
        "neighbor_accuracy": 0.9787,
        "seconds": 123.4,
        "kept": False,
    }
    console = Console(width=100, file=io.StringIO())
    console.print(history_table([{**record, "write": 1, "batch": 1, "iteration": 1, "facts": 5}, record]))
    text = cast(io.StringIO, console.file).getvalue()
    for word in ("12.35", "1235", "1.012", "123", "plexity", "weights", "Edited", "999"):
        assert word in text
