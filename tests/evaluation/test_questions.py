"""Which questions a fact brings."""

import pytest

from errata.evaluation.evaluate import evaluate
from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.models.model import EditableModel
from errata.results.results import Results
from evaluation_cases import (
    FACTS,
    edit_of,
    exact_model,
)


@pytest.fixture
def gpt2() -> EditableModel:
    return exact_model("gpt2")


# Which questions are asked.
class TestQuestions:
    def prompts(self, results: Results, group: str, record: int = 0) -> list[str]:
        return [question.prompt for question in results.records[record].after.group(group)]

    def test_each_group_has_its_prompts_and_answers(self, gpt2: EditableModel) -> None:
        after = evaluate(gpt2, FACTS[:1], generate=False).records[0].after
        said = {
            name: [(q.prompt, q.wanted.text, q.rival and q.rival.text) for q in after.group(name)]
            for name in ("efficacy", "generalization", "specificity", "same_subject", "unrelated")
        }
        assert said == {
            "efficacy": [("The capital of France is", "Rome", "Paris")],
            "generalization": [
                ("France, whose capital is", "Rome", "Paris"),
                ("They say: the capital of France is", "Rome", "Paris"),
            ],
            "specificity": [
                ("The capital of Valdoria is", "Paris", "Rome"),
                ("Berlin lies near", "Kestrel", "Rome"),
            ],
            "same_subject": [("France is near", "the sea", None)],
            "unrelated": [("Edda works in", "the field", None)],
        }

    def test_without_target_true_there_is_no_rival(self, gpt2: EditableModel) -> None:
        record = evaluate(gpt2, FACTS[3:4]).records[0]
        assert record.after.efficacy[0].rival is None
        assert (
            record.after.specificity == ()
        )  # its one neighborhood prompt is a plain text: no answer is known
        assert Results((record,), "tiny").scores()["efficacy_success"] is None

    def test_what_another_record_edits_is_no_other_fact(self, gpt2: EditableModel) -> None:
        asks = Fact("{} lives in", "Mira", "Rome", same_subject_prompts=(Probe("Mira was born in", "Oslo"),))
        edits = Fact("{} was born in", "Mira", "Paris")
        assert self.prompts(evaluate(gpt2, [asks]), "same_subject") == ["Mira was born in"]
        assert self.prompts(evaluate(gpt2, [asks, edits]), "same_subject") == []

    def test_a_question_about_another_records_subject_is_not_unrelated(self, gpt2: EditableModel) -> None:
        probes = (Probe("Jonas lives in", "Berlin"), Probe("Jonasson lives in", "Berlin"))
        asks = Fact("{} lives in", "Mira", "Rome", unrelated_prompts=probes)
        edits = Fact("{} was born in", "Jonas", "Paris")
        assert self.prompts(evaluate(gpt2, [asks]), "unrelated") == ["Jonas lives in", "Jonasson lives in"]
        assert self.prompts(evaluate(gpt2, [asks, edits]), "unrelated") == ["Jonasson lives in"]

    def test_what_the_edit_wrote_besides_counts_too(self, gpt2: EditableModel) -> None:
        asks = Fact("{} lives in", "Mira", "Rome", same_subject_prompts=(Probe("Mira was born in", "Oslo"),))
        edit = edit_of(gpt2, facts=(asks, Fact("{} was born in", "Mira", "Paris")))
        assert self.prompts(evaluate(gpt2, [asks], edit), "same_subject") == []

    def test_a_record_says_which_fact_it_is(self, gpt2: EditableModel) -> None:
        record = evaluate(gpt2, FACTS).records[0]
        assert (record.case_id, record.subject, record.prompt, record.relation_id) == (
            7,
            "France",
            "The capital of France is",
            "P36",
        )
        assert (record.target_new, record.target_true) == ("Rome", "Paris")
