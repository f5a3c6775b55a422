"""Metrics: the registry, token accuracy, whole answers, trustworthiness, and what files keep of them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from cli_world import answer as told_by
from errata.evaluation.evaluate import evaluate
from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.models.model import EditableModel
from errata.results.metrics import REGISTRY
from errata.results.outcomes import Answer, Outcomes, Question, Record
from errata.results.results import Results, load_results
from errata.results.scores import score_records
from errata.results.written import Continuation, PlainText, Writing
from errata.runtime import to_json
from families import FACTS, SENTENCES, tiny_model
from metric_cases import FACT
from tiny import SAYS, parrot


@pytest.fixture
def gpt2() -> EditableModel:
    return tiny_model("gpt2", "float64")


class TestRegistry:
    def test_each_metric_has_its_name_a_definition_and_one_way_to_be_computed(self) -> None:
        for name, metric in REGISTRY.items():
            assert name == metric.name
            assert all([metric.label, metric.definition.endswith("."), metric.needs, metric.source])
            assert sum(way is not None for way in (metric.of_record, metric.of_text, metric.harmonic)) == 1

    def test_labels_that_say_success_or_accuracy_are_named_so(self) -> None:
        for name, metric in REGISTRY.items():
            for word in ("success", "accuracy"):
                assert (word in metric.label) == name.endswith(word)

    def test_the_command_tells_all_of_it(self) -> None:
        rows = told_by("metrics")["metrics"]
        assert [row["name"] for row in rows] == list(REGISTRY)  # type: ignore[attr-defined]
        assert rows[0]["definition"] == REGISTRY["efficacy_success"].definition  # type: ignore[index]


class TestTokenAccuracy:
    def test_it_is_a_mean_over_tokens_then_over_questions(self) -> None:
        half = Question("p", Answer("a b", (1, 2), (-1.0, -1.0), (1, 9), "a x"))
        whole = Question("p", Answer("a", (1,), (-1.0,), (1,), "a"))
        record = Record(0, "s", "p", "a", None, None, None, Outcomes(efficacy=(half, whole)))
        scores = score_records([record], "after")
        assert scores["efficacy_token_accuracy"].mean == 0.75  # type: ignore[union-attr]
        assert scores["efficacy_accuracy"].mean == 0.5  # type: ignore[union-attr]


class TestWholeAnswers:
    @pytest.mark.parametrize(
        ("whole", "complete"),
        [
            ("Port Avel. He", True),
            ("Port Avel", True),
            ("Port Avel\nHe", True),
            ('Port Avel." He', True),
            ("Port Avel, by the sea", False),
            ("Port Avel and", False),
            ("Port Avelina.", False),
            ("a port. Port Avel.", False),
            ("", False),
        ],
    )
    def test_the_target_must_be_all_that_is_said(self, whole: str, complete: bool) -> None:
        said = Continuation("p", "Port Avel", (1, 2), (1, 2), "Port Avel", whole, whole)
        assert said.complete is complete
        assert said.exact

    def test_a_full_stop_inside_the_target_ends_nothing(self) -> None:
        assert Continuation("p", "St. Mira", (1,), (1,), "x", "St.", "St. Mira.").complete
        assert not Continuation("p", "St. Mira", (1,), (1,), "x", "St.", "St. Miranda").complete

    def test_older_files_cannot_tell(self) -> None:
        assert Continuation("p", "a", (1,), (1,), "a", "a").complete is None

    def test_a_model_that_goes_on_is_right_and_not_complete(self) -> None:
        scores = evaluate(parrot(), [Fact("{} says", "Mira", SAYS)]).scores()
        assert scores["generation_accuracy"].mean == 1  # type: ignore[union-attr]
        assert scores["whole_answer_accuracy"].mean == 0  # type: ignore[union-attr]


class TestTrustworthy:
    probes = replace(
        FACT,
        reversed_prompts=(Probe("In Port Avel lives", "Jonas"), Probe("Mira lives in", "Tarn")),
        two_hop_prompts=(Probe("The sea of the home of Jonas is the", "Adriatic"),),
    )

    def test_reversed_and_two_hop_questions_are_asked(self, gpt2: EditableModel) -> None:
        after = evaluate(gpt2, [self.probes]).records[0].after
        assert [question.wanted.text for question in after.reversed] == ["Jonas", "Tarn"]
        assert [question.wanted.text for question in after.two_hop] == ["Adriatic"]

    def test_what_another_record_edits_is_not_asked_back(self, gpt2: EditableModel) -> None:
        other = Fact("{} lives in", "Mira", "Lindale")
        after = evaluate(gpt2, [self.probes, other]).records[0].after
        assert [question.wanted.text for question in after.reversed] == ["Jonas"]

    def test_it_can_be_left_out(self, gpt2: EditableModel) -> None:
        after = evaluate(gpt2, [self.probes], trustworthy=False).records[0].after
        assert after.prefixed == after.reversed == after.two_hop == ()
        assert after.efficacy


class TestFiles:
    def test_everything_new_is_kept(self, gpt2: EditableModel, tmp_path: Path) -> None:
        results = evaluate(gpt2, [TestTrustworthy.probes, *FACTS], fluency=True, texts=SENTENCES)
        read = load_results(results.save(tmp_path / "run"))
        assert read == results
        assert read.scores() == results.scores()

    def test_a_file_of_the_first_schema_is_read_as_not_measured(self, tmp_path: Path) -> None:
        said = Continuation("p", "a", (1,), (1,), "a", "a.")
        asked = (Question("p", Answer("a", (1,), (-1.0,), (1,), "a")),)
        outcomes = Outcomes(efficacy=asked, continuation=said)
        file = Results((Record(0, "s", "p", "a", None, None, None, outcomes),), "tiny").save(
            tmp_path / "r.jsonl"
        )
        header, row = (json.loads(line) for line in file.read_text().splitlines())
        del header["texts"], row["after"]["continuation"]["whole"], row["after"]["writing"]
        for group in ("prefixed", "reversed", "two_hop"):
            del row["after"][group]
        file.write_text("\n".join(json.dumps(one) for one in ({**header, "schema": 1}, row)) + "\n")
        scores = load_results(file).scores()
        assert scores["efficacy_accuracy"].mean == 1  # type: ignore[union-attr]
        assert scores["whole_answer_accuracy"] is None
        assert scores["prefixed_accuracy"] is None

    def test_numbers_that_are_none_are_kept_as_such(self) -> None:
        assert math.isnan(PlainText(3, math.nan).perplexity)
        assert PlainText(2, -1e9).perplexity == pytest.approx(1e300)
        assert to_json(Writing((), (), 0.0))["consistency"] is None
