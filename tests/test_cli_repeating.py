"""`errata edit` with iterations, batches and a guard, and what `errata show` tells of them."""

from pathlib import Path

import pytest

import errata
from cli_world import World, answer, edit, failed, flat, run, the_world


@pytest.fixture
def world() -> World:
    return the_world()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))


def test_iterations_are_shown_and_kept(world: World, tmp_path: Path) -> None:
    done = run(*edit(world, tmp_path / "edit", "--iterations", "3", "--stop", "never"))
    assert done.exit_code == 0, done.output
    assert "p, weights" in flat(done.stdout)
    found = errata.load_edit(tmp_path / "edit")
    assert [record["iteration"] for record in found.history] == [1, 2, 3]
    assert (found.origin.strategy["iterations"], found.origin.strategy["stop"]) == (3, "never")
    shown = flat(run("show", tmp_path / "edit").stdout)
    assert "iterations=3" in shown
    assert "p, weights" in shown


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
