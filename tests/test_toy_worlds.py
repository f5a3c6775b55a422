"""benchmarks/toy_worlds.py: a model is trained once, its facts have wordings of each kind, the table has a row."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import transformers

import errata
from errata.almanac.split import halves
from programs import benchmark

QUICK = ["--families", "olmo2", "--people", "24", "--steps", "2", "--edits", "1", "--asked", "1"]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """The program as a module."""
    return benchmark("toy_worlds")


def test_a_family_is_trained_edited_and_told_and_nothing_of_it_is_done_twice(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*QUICK, "--output", str(tmp_path), "--method", "finetune"]
    program.main(words)
    first = capsys.readouterr().out
    row = first.splitlines()[-1].split(" | ")
    assert row[0] == "| olmo2"
    assert row[2] == "1 (x1)"
    monkeypatch.setattr(program, "train", None)
    monkeypatch.setattr(program, "run_cell", None)
    program.main(words)
    assert capsys.readouterr().out == first


def test_second_moments_are_measured_on_the_text_of_the_world_and_only_once(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = program.trained("phi", program.Training(people=24, steps=1), tmp_path)
    model = errata.load(str(folder))
    request = errata.EditRequest(program.toy_of(24).facts(1), "memit")
    moments = program.moments_of(model, request, folder)
    assert [path.name for path in sorted(moments.iterdir()) if path.suffix == ".safetensors"] == [
        f"model.layers.{block}.mlp.fc2.safetensors" for block in (1, 2)
    ]
    monkeypatch.setattr(program, "collect", None)
    assert program.moments_of(model, request, folder) == moments


def test_another_training_is_another_model(program: ModuleType, tmp_path: Path) -> None:
    folder = program.trained("llama", program.Training(people=8, steps=1), tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    assert json.loads((folder / "toy.json").read_text())["parameters"] > 0
    program.trained("llama", program.Training(people=8, steps=1, seed=1), tmp_path)
    assert (folder / "model.safetensors").read_bytes() != weights


def test_what_is_asked_is_never_edited_and_other_wordings_were_never_seen(program: ModuleType) -> None:
    toy = program.toy_of(24)
    facts = toy.facts(5)
    subjects = {fact.subject for fact in facts}
    read = " ".join(toy.texts(3000))
    assert len(subjects) == 5
    for fact in facts:
        assert all(other not in probe.prompt for other in subjects for probe in fact.neighborhood)
        assert len(fact.same_subject_prompts) == 4
        assert len(fact.paraphrase_prompts) == 3
        assert not any(prompt in read for prompt in fact.paraphrase_prompts)
        assert f"{fact.question} {fact.target_true}." in read
    assert {halves()[subject] for subject in subjects} == {"held-out"}


def test_every_family_is_one_of_transformers_and_takes_the_mask(program: ModuleType) -> None:
    tokenizer = program.toy_of(8).tokenizer()
    for family in program.FAMILIES.values():
        assert issubclass(getattr(transformers, family.config), transformers.PretrainedConfig)
        program.train(
            program.new_model(family, tokenizer, 0), tokenizer, program.Training(people=8, steps=1), ""
        )
