"""`errata.evaluate`: before and after an edit, the model left as it was, numbers that are none, and what is refused."""

import math
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from errata.errors import AlreadyApplied, FactError, PromptTooLong
from errata.evaluation.evaluate import EvaluationOptions, EvaluationWords, evaluate
from errata.evaluation.generation import continue_texts
from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.models.loading import from_parts
from errata.models.model import EditableModel
from errata.results.outcomes import NO_TOKEN
from errata.results.results import load_results
from evaluation_cases import (
    FACTS,
    assert_same_answer,
    assert_same_outcomes,
    edit_of,
    exact_model,
    slow_answer,
    slow_ids,
    slow_logits,
)


@pytest.fixture
def gpt2() -> EditableModel:
    return exact_model("gpt2")


class TestEdit:
    def test_before_is_the_unedited_model_and_after_the_edited_one(self, gpt2: EditableModel) -> None:
        edit = edit_of(gpt2)
        results = evaluate(gpt2, FACTS, edit)
        plain = evaluate(gpt2, FACTS)
        with edit.applied(gpt2):
            edited = evaluate(gpt2, FACTS)
        for both, one, other in zip(results.records, plain.records, edited.records, strict=True):
            assert both.before is not None
            assert_same_outcomes(both.before, one.after)
            assert_same_outcomes(both.after, other.after)
        first = results.records[0]
        assert first.before is not None
        assert (
            first.before.efficacy[0].wanted.log_probability != first.after.efficacy[0].wanted.log_probability
        )
        assert results.has_before
        assert not plain.has_before

    def test_the_model_is_afterwards_as_it_was(self, gpt2: EditableModel) -> None:
        weights = {name: value.clone() for name, value in gpt2.model.state_dict().items()}
        evaluate(gpt2, FACTS, edit_of(gpt2))
        assert all(torch.equal(value, weights[name]) for name, value in gpt2.model.state_dict().items())
        assert not gpt2.ledger.changed

    def test_also_when_something_fails_on_the_way(self, gpt2: EditableModel) -> None:
        def interrupt(stage: str, done: int, total: int) -> None:
            if stage.endswith("after"):
                raise KeyboardInterrupt

        weights = {name: value.clone() for name, value in gpt2.model.state_dict().items()}
        with pytest.raises(KeyboardInterrupt):
            evaluate(gpt2, FACTS, edit_of(gpt2), interrupt)
        assert all(torch.equal(value, weights[name]) for name, value in gpt2.model.state_dict().items())

    def test_an_edit_that_changes_nothing_leaves_answers_unchanged(self, gpt2: EditableModel) -> None:
        results = evaluate(gpt2, FACTS, edit_of(gpt2, size=0.0))
        unchanged = results.scores()["specificity_unchanged"]
        assert unchanged is not None
        assert (unchanged.mean, unchanged.count) == (1, 1)
        assert all(record.before == record.after for record in results.records)

    def test_an_edit_that_is_applied_already_is_refused(self, gpt2: EditableModel) -> None:
        edit = edit_of(gpt2)
        with edit.applied(gpt2), pytest.raises(AlreadyApplied):
            evaluate(gpt2, FACTS, edit)

    def test_results_say_how_to_measure_again(self, gpt2: EditableModel, tmp_path: Path) -> None:
        results = evaluate(gpt2, FACTS, edit_of(gpt2))
        assert results.model == gpt2.name
        assert results.settings == {
            "dtype": "float64",
            "device": "cpu",
            "fingerprint": gpt2.measure_fingerprint(),
            "edits_already_applied": 0,
            "generate": True,
            "fluency": False,
            "seed": 0,
            "texts": 0,
            "trustworthy": True,
            "edit_facts_asked": 5,
        }
        assert results.edit is not None
        assert results.edit["method"] == "pmet"
        assert results.edit["settings"] == {"layers": [0, 1], "learning_rate": 0.1}
        assert (results.edit["facts"], results.edit["dropped"]) == (5, 0)
        saved = results.save(tmp_path / "run")
        assert load_results(saved) == results


# Numbers that are none, and few digits.
class TestNumbers:
    def broken_model(self) -> EditableModel:
        model = exact_model("gpt2")
        copy = GPT2LMHeadModel(model.model.config).to(torch.float64)  # type: ignore[arg-type]
        copy.load_state_dict(model.model.state_dict())
        with torch.no_grad():
            copy.transformer.ln_f.weight[0] = math.nan
        return from_parts(copy, model.tokenizer, "broken")

    def test_a_broken_model_succeeds_nowhere(self, tmp_path: Path) -> None:
        results = evaluate(self.broken_model(), FACTS)
        assert results.broken == results.records
        answers = [question.wanted for record in results.records for question in record.after.questions]
        assert all(math.isnan(answer.log_probability) for answer in answers)
        assert set(chain.from_iterable(answer.predicted for answer in answers)) == {NO_TOKEN}
        assert {answer.predicted_text for answer in answers} == {""}
        assert {score.mean for score in results.scores().values() if score is not None} == {0}
        assert {said.text for record in results.records if (said := record.after.continuation)} == {""}
        results.save(tmp_path / "run.jsonl")

    def test_half_precision_is_read_in_single(self) -> None:
        model = exact_model("gpt2")
        half = GPT2LMHeadModel(model.model.config).to(torch.bfloat16)  # type: ignore[arg-type]
        half.load_state_dict(model.model.state_dict())
        wrapped = from_parts(half, model.tokenizer, "half")
        after = evaluate(wrapped, [Fact("{} lives in", "Jonas", "Rome")]).records[0].after
        prompt, target = slow_ids(wrapped, "Jonas lives in", "Rome")
        logits = slow_logits(wrapped, prompt)[-1]
        assert logits.dtype == torch.bfloat16
        expected = float(logits.float().log_softmax(-1)[target[0]])
        assert after.efficacy[0].wanted.log_probabilities[0] == pytest.approx(expected, abs=0.02)
        assert after.efficacy[0].wanted.log_probabilities[0] != float(torch.tensor(expected).bfloat16())


# What cannot be asked.
class TestRefused:
    def too_long(self, model: EditableModel) -> str:
        return "Mira " * model.max_length

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"paraphrase_prompts": ("{long}",)}, "paraphrase_prompts"),
            ({"neighborhood_prompts": ("{long}",)}, "neighborhood_prompts"),
            ({"same_subject_prompts": (("{long}", "x"),)}, "same_subject_prompts"),
            ({"unrelated_prompts": (("{long}", "x"),)}, "unrelated_prompts"),
            ({"prompt": "{long} {}"}, "prompt"),
        ],
    )
    def test_a_prompt_that_is_too_long(
        self, gpt2: EditableModel, change: dict[str, object], field: str
    ) -> None:
        long = self.too_long(gpt2)

        def filled(value: object) -> object:
            if isinstance(value, str):
                return value.replace("{long}", long)
            assert isinstance(value, tuple)
            return Probe(long, "x") if value == ("{long}", "x") else tuple(filled(item) for item in value)

        values = {name: filled(value) for name, value in change.items()}
        fact = replace(FACTS[0], subject="Oslo", **{"prompt": "{} is", **values})  # type: ignore[arg-type]
        with pytest.raises(PromptTooLong) as caught:
            evaluate(gpt2, [FACTS[1], fact])
        assert str(caught.value).startswith(f"Fact 2 (about 'Oslo', case_id 7), {field}: ")
        assert str(gpt2.max_length) in str(caught.value)

    def test_a_prompt_that_just_fits(self, gpt2: EditableModel) -> None:
        def asked(words: int) -> tuple[Fact, int]:
            fact = Fact("the" + " the" * words + " {} plays", "Jonas", "the")
            return fact, len(slow_ids(gpt2, fact.question, "the")[0])

        words = gpt2.max_length - asked(0)[1]
        fact, size = asked(words)
        assert size == gpt2.max_length
        record = evaluate(gpt2, [fact]).records[0]
        assert_same_answer(record.after.efficacy[0].wanted, slow_answer(gpt2, fact.question, "the"))
        said = record.after.continuation
        assert said is not None
        assert len(said.tokens) <= 1
        with pytest.raises(PromptTooLong):
            evaluate(gpt2, [asked(words + 1)[0]])

    def test_no_facts(self, gpt2: EditableModel) -> None:
        with pytest.raises(FactError, match="no facts to evaluate"):
            evaluate(gpt2, [])

    def test_continuing_names_the_prompt(self, gpt2: EditableModel) -> None:
        with pytest.raises(PromptTooLong, match=r"^Prompt: "):
            continue_texts(gpt2, [self.too_long(gpt2)])


def test_progress_is_told_in_order(gpt2: EditableModel) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(gpt2, FACTS, edit_of(gpt2), lambda stage, done, total: told.append((stage, done, total)))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["probabilities before", "generation before", "probabilities after", "generation after"]
    for stage in stages:
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]


def test_every_option_is_a_keyword() -> None:
    assert set(EvaluationWords.__annotations__) == {one.name for one in fields(EvaluationOptions)}
