"""Several processes share one edit: the same result, one that speaks and writes, and an end that is told."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import errata
from cli_world import QUICK, the_world
from errata.cli import main
from errata.errors import ModelError, ProcessLost
from errata.models.loading import load
from errata.moments.collection import collect
from errata.moments.folder import moment_path
from errata.results.results import load_results
from errata.runtime import processes
from errata.values import targets as targets_module
from families import CONTEXTS, FACTS, SETTINGS, tiny_model
from tiny import TEXTS, fresh_model
from together import statuses_of, together
from tolerances import DEPTH, FORWARD, RIDGED, assert_agree, tolerance

ANSWERS = tolerance(torch.float32, FORWARD, RIDGED, scale=10.0)
"""Of log probabilities, which are between -20 and 0, after an edit of each of two programs."""
METHODS = ("pmet", "memit", "rome")


def settings_of(method: str) -> dict[str, object]:
    if method == "rome":
        return {"layers": [1], "values.steps": 4}
    return {**SETTINGS, "solve.covariance_ridge": 0.1}


def whole_run(folder: Path, family: str = "gpt2", methods: tuple[str, ...] = ("pmet",)) -> int:
    """Second moments, edits and their evaluation; the main process writes all of it."""
    model = tiny_model(family)
    with processes.joined():
        sites = [model.site("ffn", layer) for layer in (1, 2)]
        moments = folder / "moments"
        collect(model, sites, TEXTS, folder=moments, corpus="t", samples=len(TEXTS), batch_tokens=256)
        for method in methods:
            edit = errata.edit(
                model, FACTS, method, settings_of(method), contexts=CONTEXTS, covariance=moments
            )
            results = errata.evaluate(model, FACTS, edit, texts=TEXTS[:5])
            if processes.is_main():
                edit.save(folder / method)
                results.save(folder / f"{method}.jsonl")
        return processes.count()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    assert whole_run(folder, methods=METHODS) == 1
    return folder


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by-two")
    assert together(2, folder / "told", lambda: whole_run(folder, methods=METHODS)) == [2, 2]
    return folder


def assert_same_edit(one: Path, other: Path) -> None:
    first, second = errata.load_edit(one), errata.load_edit(other)
    assert first.deltas.keys() == second.deltas.keys()
    for path, delta in first.deltas.items():
        assert_agree(second.deltas[path].matrix, delta.matrix, FORWARD, RIDGED, dtype=torch.float32)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_find_the_edit_of_one(method: str, alone: Path, by_two: Path) -> None:
    assert_same_edit(alone / method, by_two / method)


def test_two_processes_measure_the_second_moments_of_one(alone: Path, by_two: Path) -> None:
    for layer in (1, 2):
        path = tiny_model("gpt2").site("ffn", layer).path
        one, other = (load_file(moment_path(folder / "moments", path)) for folder in (alone, by_two))
        assert_agree(one["second_moment"], other["second_moment"], FORWARD, DEPTH)
        assert int(one["count"]) == int(other["count"])


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_evaluate_as_one(method: str, alone: Path, by_two: Path) -> None:
    one, other = (load_results(folder / f"{method}.jsonl") for folder in (alone, by_two))
    for mine, theirs in zip(one.records, other.records, strict=True):
        first, second = (record.after.efficacy[0].wanted for record in (mine, theirs))
        assert first.log_probabilities == pytest.approx(second.log_probabilities, abs=ANSWERS)
        assert first.predicted == second.predicted
        assert mine.after.continuation == theirs.after.continuation
    read = [[text.log_probability for text in results.texts["after"]] for results in (one, other)]
    assert read[0] == pytest.approx(read[1], rel=ANSWERS)


def test_more_processes_than_facts(tmp_path: Path, alone: Path) -> None:
    assert together(5, tmp_path / "told", lambda: whole_run(tmp_path)) == [5] * 5
    assert_same_edit(alone / "pmet", tmp_path / "pmet")


def test_dense_updates_from_sums(tmp_path: Path) -> None:
    facts = [
        errata.Fact(fact.prompt, f"{fact.subject} {number}", fact.target_new)
        for number in range(5)
        for fact in FACTS
    ]

    def work(folder: Path) -> None:
        model = tiny_model("gpt2")
        with processes.joined():
            sites = [model.site("ffn", layer) for layer in (1, 2)]
            collect(model, sites, TEXTS, folder=folder / "m", corpus="t", samples=len(TEXTS))
            edit = errata.edit(
                model, facts, "memit", settings_of("memit"), contexts=CONTEXTS, covariance=folder / "m"
            )
            if processes.is_main():
                edit.save(folder / "edit")

    work(tmp_path / "one")
    together(2, tmp_path / "told", lambda: work(tmp_path / "two"))
    assert errata.load_edit(tmp_path / "one" / "edit").deltas[sites_path()].dense is not None
    assert_same_edit(tmp_path / "one" / "edit", tmp_path / "two" / "edit")


def sites_path() -> str:
    return tiny_model("gpt2").site("ffn", 1).path


def test_an_unfinished_measurement_goes_on_with_two_processes(
    tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("errata.moments.collection.SAVE_SECONDS", -1.0)
    monkeypatch.setattr("errata.moments.collection.SAVE_SHARE", 1e9)
    monkeypatch.setattr("errata.moments.key_sums.TOKENISED_AT_ONCE", 16)
    model = fresh_model()

    def texts(broken: bool):
        for number, text in enumerate(TEXTS):
            if broken and number == 60:
                raise OSError("the corpus is gone")
            yield text

    def work(broken: bool) -> bool:
        with processes.joined():
            sites = [model.site("ffn", layer) for layer in (1, 2)]
            with contextlib.suppress(OSError):
                collect(
                    model,
                    sites,
                    texts(broken),
                    folder=tmp_path,
                    corpus="t",
                    samples=len(TEXTS),
                    batch_tokens=64,
                )
        return bool(list(tmp_path.glob("*.partial")))

    assert together(2, tmp_path / "told", lambda: work(True)) == [True, True]
    assert together(2, tmp_path / "told", lambda: work(False)) == [False, False]
    path = moment_path(tmp_path, sites_path())
    whole = load_file(moment_path(alone / "moments", sites_path()))["second_moment"]
    assert_agree(load_file(path)["second_moment"], whole, FORWARD, DEPTH)


def test_what_processes_tell_each_other(tmp_path: Path) -> None:
    def work() -> list[object]:
        with processes.joined():
            rank = processes.rank()
            tensors = {} if rank == 1 else {"x": torch.full((2,), float(rank))}
            gathered = [part["x"].tolist() if part else None for part in processes.gather_tensors(tensors)]
            summed = processes.sum_in_main(torch.tensor([float(rank + 1)]))
            made = processes.tensors_of_main(lambda: {"y": torch.tensor([float(rank)])})
            return [
                list(processes.share("abcde")),
                processes.gather(rank),
                processes.gather_shares({rank: f"of {rank}"}) == {0: "of 0", 1: "of 1", 2: "of 2"},
                gathered,
                summed.tolist(),
                processes.agreed(rank + 7),
                made["y"].tolist(),
            ]

    shares = [["a", "d"], ["b", "e"], ["c"]]
    expected = [
        [share, [0, 1, 2], True, [[0.0, 0.0], None, [2.0, 2.0]], [6.0 if not rank else 0.0], 7, [0.0]]
        for rank, share in enumerate(shares)
    ]
    assert together(3, tmp_path, work) == expected


def test_one_process_asks_nobody() -> None:
    with processes.joined():
        assert (processes.count(), processes.rank(), processes.is_main()) == (1, 0, True)
        assert processes.share([1, 2]) == [1, 2]
        assert processes.gather({"a": (1,)}) == [{"a": (1,)}]
        assert processes.agreed((1, 2)) == (1, 2)
    assert not processes.started_together({"WORLD_SIZE": "2"})
    assert processes.own_device("cuda") == "cuda"


def test_a_model_spread_over_devices_is_for_one_process(tmp_path: Path) -> None:
    def work() -> str:
        with processes.joined():
            with pytest.raises(ModelError) as refused:
                load("almanac", device_map="auto")
            return str(refused.value)

    assert "each of 2 processes holds a whole one" in str(together(2, tmp_path, work)[0])


def command(*words: str) -> None:
    """The command line in this process, its words in files beside."""
    sys.argv = ["errata", *words]
    main()


def test_one_process_alone_speaks_and_writes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    there = the_world()
    output = tmp_path / "edit"
    words = ("--facts", str(there.facts), "--covariance", str(there.moments), "--output", str(output), *QUICK)
    assert statuses_of(2, tmp_path / "told", lambda: command("edit", there.model, *words, "--evaluate")) == [
        0,
        0,
    ]
    told = " ".join(capfd.readouterr().out.split())
    assert told.count("The edit is in") == 1
    assert {file.name for file in output.iterdir()} >= {"edit.json", "edit.safetensors", "results.jsonl"}
    statuses_of(2, tmp_path / "told", lambda: command("evaluate", there.model, "-f", str(there.facts)))
    assert capfd.readouterr().out.count("Efficacy") == 1
    statuses_of(2, tmp_path / "told", lambda: command("models"))
    assert capfd.readouterr().out.count("What a record says is measured") == 1


def test_a_mistake_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    codes = statuses_of(
        2, tmp_path, lambda: command("edit", "no/such/folder/here", "-f", "none.jsonl", "-o", "new")
    )
    assert codes[0] == 2
    told = capfd.readouterr().err
    assert told.count("Error: ") <= 2  # the second one waits for torchrun, which is not there
    assert "Process 1: " in told


def test_a_process_that_dies_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments, kept = tmp_path / "moments", tmp_path / "kept"
    model = tiny_model("gpt2")
    collect(
        model, [model.site("ffn", layer) for layer in (1, 2)], TEXTS, folder=moments, corpus="t", samples=100
    )
    monkeypatch.setattr("errata.passes.memory.MOST", 1)
    whole = targets_module.optimize_batch

    def dying(*arguments: object) -> object:
        if processes.rank() == 1 and list(kept.glob("*")):
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments)  # type: ignore[arg-type]

    def work(patched: bool) -> str:
        if patched:
            targets_module.optimize_batch = dying  # type: ignore[assignment]
        try:
            with processes.joined():
                errata.edit(
                    model,
                    FACTS,
                    "pmet",
                    settings_of("pmet"),
                    contexts=CONTEXTS,
                    covariance=moments,
                    keep_in=kept,
                )
        except ProcessLost as lost:
            return str(lost)
        return "done"

    codes = statuses_of(2, tmp_path / "told", lambda: work(True))
    assert codes == [0, -signal.SIGKILL]
    assert "Another process of this run has ended" in (tmp_path / "told" / "0.json").read_text()
    there = {file.name for file in kept.iterdir()}
    assert there
    assert together(2, tmp_path / "told", lambda: work(False)) == ["done", "done"]
    assert there < {file.name for file in kept.iterdir()}


DYING = """
import os, signal, sys
from errata.values import targets
from errata.cli import main
from errata.passes.memory import facts_at_once

targets.facts_at_once = lambda *_: 1
if os.environ["RANK"] == "1":
    whole, done = targets.optimize_batch, []
    def dying(*arguments):
        if done:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(1)
        return whole(*arguments)
    targets.optimize_batch = dying
main()
"""


def test_torchrun_tells_that_a_worker_was_killed(tmp_path: Path) -> None:
    there, script = the_world(), tmp_path / "dying.py"
    script.write_text(DYING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    edit = ["edit", there.model, "--facts", str(there.facts), "--covariance", str(there.moments), *QUICK]
    run = subprocess.run(
        [*torchrun, *edit, "--output", str(tmp_path / "edit")],
        env={**os.environ, "ERRATA_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "Error: Another process of this run has ended" in run.stderr
    assert "the same command goes on from there" in run.stderr
    assert not (tmp_path / "edit").exists()
    assert list((tmp_path / "cache" / "targets").iterdir())
