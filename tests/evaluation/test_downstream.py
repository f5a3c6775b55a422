"""Tasks of the lm-evaluation-harness before and after an edit, offline: a small local task, and our own."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import errata
from cli_world import answer, failed, run, the_world, with_probes
from errata.errors import FactError, MissingExtra, SettingsError
from errata.evaluation import downstream
from errata.evaluation.harness import tasks_folder
from errata.facts.fact import Fact
from errata.facts.reading import write_facts
from families import FACTS, tiny_model
from tiny import SAYS, parrot

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("default")  # the harness's own

LOCAL = """task: tiny_colors
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


@pytest.fixture(autouse=True, scope="module")
def read_once() -> Iterator[None]:
    """The harness reads some thousand files to know its own tasks: once for this module, not once for each test."""
    from lm_eval.tasks import _index

    whole = _index.TaskIndex.build
    own = cache(lambda path: whole([path]))

    def build(paths: list[Path]) -> dict[str, Any]:
        return {**own(paths[0]), **whole(paths[1:])}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_index.TaskIndex, "build", staticmethod(build))
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of three questions."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "data"))
    home = tmp_path / "tasks"
    home.mkdir()
    rows = [{"question": f"Flag {n} is", "choices": [SAYS, "quiet river"], "gold": 0} for n in range(3)]
    (home / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (home / "tiny.yaml").write_text(LOCAL.format(data=home / "rows.jsonl"))
    return home


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    write_facts(tmp_path / "facts.jsonl", [with_probes(fact) for fact in FACTS])
    return tmp_path / "facts.jsonl"


def test_a_local_task_is_run_on_the_model_object(folder: Path) -> None:
    model = parrot()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    found = downstream.find_tasks(["tiny_colors"], folder, limit=2).run(model)
    (row,) = found.rows
    assert (row.task, row.metric, row.samples, row.higher_is_better) == ("tiny_colors", "acc", 2, True)
    assert (row.before, row.after.value, row.after.stderr) == (None, 1.0, 0.0)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


def test_our_counterfact_task_agrees_with_our_own_evaluation(facts: Path) -> None:
    """Of one-token accuracy and of the order of answers, on a tiny model with random weights."""
    model = tiny_model("gpt2")
    found = downstream.find_tasks(["errata_counterfact"], facts=facts).run(model)
    values = {(row.task, row.metric): row.after.value for row in found.rows}
    records = errata.evaluate(model, errata.read_facts(facts), generate=False).records
    for group in ("efficacy", "generalization", "specificity"):
        questions = [question for record in records for question in record.after.group(group)]
        likelier = [
            sum(question.wanted.log_probabilities) > sum(question.rival.log_probabilities)
            for question in questions
            if question.rival is not None
        ]
        correct = [question.wanted.correct for question in questions]
        task = f"errata_counterfact_{group}"
        assert values[task, "success"] == pytest.approx(sum(likelier) / len(likelier))
        assert values[task, "accuracy"] == pytest.approx(sum(correct) / len(correct))
    assert {row.samples for row in found.rows} == {len(FACTS)}


def test_our_zsre_task_counts_whole_answers(tmp_path: Path) -> None:
    said = Fact(
        "{} plays the", "Orin Vasker", SAYS, paraphrase_prompts=("I hear that Orin Vasker plays the",)
    )
    other = Fact("{} was created by", "Zentro", "Northlake Foundry")
    write_facts(tmp_path / "facts.jsonl", [said, other])
    tasks = downstream.find_tasks(
        ["errata_zsre_efficacy", "errata_zsre_generalization"], facts=tmp_path / "facts.jsonl"
    )
    values = {(row.task, row.metric): row.after.value for row in tasks.run(parrot()).rows}
    assert values == {
        ("errata_zsre_efficacy", "accuracy"): 0.5,
        ("errata_zsre_generalization", "accuracy"): 1.0,
    }
    with pytest.raises(FactError, match="no prompts for this task"):
        downstream.find_tasks(["errata_zsre_specificity"], facts=tmp_path / "facts.jsonl").run(parrot())


def test_after_is_of_the_edited_model(facts: Path) -> None:
    model = tiny_model("gpt2")
    edit = errata.edit(
        model, [FACTS[0]], "finetune", {"layers": [2], "epochs": 60, "learning_rate": 0.02}, contexts=[""]
    )
    write_facts(facts.with_name("one.jsonl"), [FACTS[0]])
    tasks = downstream.find_tasks(["errata_counterfact_efficacy"], facts=facts.with_name("one.jsonl"))
    for row in tasks.run(model, edit).rows:
        assert row.before is not None
        assert (row.before.value, row.after.value, row.change) == (0.0, 1.0, 1.0)
    assert not model.ledger.changed


def test_the_command_shows_before_and_after_and_keeps_both(folder: Path, tmp_path: Path) -> None:
    world, out = the_world(), tmp_path / "results"
    words: tuple[Any, ...] = (
        "evaluate",
        world.model,
        "--facts",
        world.facts,
        "--edit",
        world.edit,
        "--no-generate",
    )
    words += ("--tasks", "tiny_colors,errata_counterfact_efficacy", "--tasks-path", folder)
    told = answer(*words, "--output", out)["tasks"]
    kept = json.loads((out / "tasks.json").read_text())
    assert kept == told
    rows = {(row["task"], row["metric"]): row for row in kept["tasks"]}
    assert set(rows) == {
        ("tiny_colors", "acc"),
        ("errata_counterfact_efficacy", "success"),
        ("errata_counterfact_efficacy", "accuracy"),
    }
    changed = rows["errata_counterfact_efficacy", "success"]
    assert changed["change"] == pytest.approx(changed["after"]["value"] - changed["before"]["value"])
    assert changed["after"]["stderr"] is not None
    done = run(*words, "--tasks-limit", "1")
    assert done.exit_code == 0, done.output
    assert "at most 1 documents a task" in done.stdout
    assert "Before" in done.stdout.partition("Downstream tasks")[2]


def test_what_cannot_be_is_told_before_the_model_is_loaded(
    facts: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("evaluate", "no-such-model", "--facts", facts)
    assert "Near to it: lambada_openai" in failed(*words, "--tasks", "lambda_openai")
    assert "tiny_colors" in failed(*words, "--tasks", "tiny_colours", "--tasks-path", folder)
    assert "no folder of tasks" in failed(*words, "--tasks", "mmlu", "--tasks-path", folder / "none")
    assert "--tasks-limit belongs to --tasks" in failed(*words, "--tasks-limit", "3")
    with pytest.raises(SettingsError, match="no tasks"):
        downstream.find_tasks([])
    monkeypatch.setattr(downstream, "PACKAGE", "no_such_package")
    with pytest.raises(MissingExtra, match=r"pip install 'errata\[eval\]'"):
        downstream.find_tasks(["mmlu"])
    assert "errata[eval]" in failed(*words, "--tasks", "mmlu")


def test_without_a_file_our_tasks_say_how_to_give_one(monkeypatch: pytest.MonkeyPatch, facts: Path) -> None:
    monkeypatch.delenv("ERRATA_FACTS", raising=False)
    tasks = downstream.find_tasks(["errata_counterfact_efficacy"])
    with pytest.raises(SettingsError, match="--metadata"):
        tasks.run(parrot())
    monkeypatch.setenv("ERRATA_FACTS", str(facts))
    assert len(tasks.run(parrot()).rows) == 2


def test_the_folder_is_printed() -> None:
    told = answer("tasks")
    assert told["folder"] == str(tasks_folder())
    assert "errata_counterfact" in told["tasks"]  # type: ignore[operator]
    assert run("tasks", "--quiet").stdout == f"{tasks_folder()}\n"
