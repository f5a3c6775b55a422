"""An evaluation that was killed goes on where it was, with the same numbers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edit_cases import random_edit
from errata.evaluation import fluency, generation, probabilities
from errata.evaluation.evaluate import evaluate
from errata.evaluation.journal import Journal, Stage
from errata.results.results import Results
from families import FACTS, tiny_model

ASKED = FACTS[:2]
FINDERS = ((probabilities, "_measure_batch"), (generation, "_greedy"))


class Killed(Exception):
    """The process ends."""


def found(keep_in: Path | None, seed: int = 0) -> Results:
    model = tiny_model("gpt2")
    return evaluate(model, ASKED, random_edit(model, seed), trustworthy=False, keep_in=keep_in)


def run(
    monkeypatch: pytest.MonkeyPatch, keep_in: Path | None, dies_after: float = float("inf"), seed: int = 0
):
    """What an evaluation finds, None where it dies; and how many batches it ran."""
    done: list[int] = []

    def counted(find: Callable[..., object]) -> Callable[..., object]:
        def one(*given: object) -> object:
            if len(done) >= dies_after:
                raise Killed
            done.append(1)
            return find(*given)

        return one

    with monkeypatch.context() as patched:
        for module, name in FINDERS:
            patched.setattr(module, name, counted(getattr(module, name)))
        try:
            return found(keep_in, seed), len(done)
        except Killed:
            return None, len(done)


def test_a_killed_evaluation_goes_on_from_its_finished_batches_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, batches = run(monkeypatch, None)
    for done in (1, batches - 1):
        assert run(monkeypatch, tmp_path, dies_after=done) == (None, done)
        assert run(monkeypatch, tmp_path) == (whole, batches - done)
        assert list(tmp_path.iterdir()) == []


def test_what_was_found_with_one_edit_is_not_taken_for_another_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, batches = run(monkeypatch, None)
    run(monkeypatch, tmp_path, dies_after=batches - 1)
    again, ran = run(monkeypatch, tmp_path, seed=5)
    assert ran == batches // 2
    assert again == found(None, seed=5)


@pytest.mark.parametrize("damage", [lambda text: text[:-20], lambda text: text.replace("[[[", "[[[9, ")])
def test_a_damaged_line_counts_as_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[str], str]
) -> None:
    whole, batches = run(monkeypatch, None)
    run(monkeypatch, tmp_path, dies_after=1)
    (file,) = tmp_path.iterdir()
    before = file.read_text()
    file.write_text(damage(before))
    assert file.read_text() != before
    assert run(monkeypatch, tmp_path) == (whole, batches)


def test_where_nothing_can_be_kept_the_evaluation_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert found(tmp_path / "file") == found(None)
    assert "it begins anew" in caplog.text


def test_sampled_texts_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    prompts = [(5, 6, 7), (8, 9), (6, 5, 7)]

    def written() -> list[tuple[int, ...]]:
        stage = Stage("texts", journal=Journal.of(tmp_path, model))
        return fluency.sample_tokens(model, prompts, length=3, stage=stage)

    fresh = written()
    monkeypatch.setattr(fluency, "_sample", lambda *_: pytest.fail("these texts were kept"))
    assert written() == fresh
