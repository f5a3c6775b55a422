"""Each metric by hand: n-gram entropy, TF-IDF cosine, perplexity, whole answers, prefixes, and the registry."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from cli_world import answer as told_by
from errata.errors import SettingsError
from errata.evaluation.evaluate import evaluate
from errata.evaluation.fluency import ngram_entropy, sample_tokens, split_words
from errata.evaluation.perplexity import measure_texts, read_texts, text_perplexity
from errata.evaluation.prefixes import LENGTH, unrelated_prefixes
from errata.evaluation.references import IDF, SNIPPETS, VOCABULARY, fit_references, load_references
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
from tiny import SAYS, fresh_model, parrot

FACT = Fact(
    "{} lives in",
    "Jonas",
    "Port Avel",
    "Lindale",
    generation_prompts=("Jonas lives in", "From his window Jonas sees"),
    reference_texts=("Orin lives in Port Avel by the sea.",),
    relation_id="home",
)


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


class TestFluency:
    def test_entropy_by_hand(self) -> None:
        # 2-grams of "a b a b a": ab twice, ba twice: 1 bit. 3-grams: aba twice, bab once.
        third = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
        assert ngram_entropy("a b a b a") == pytest.approx((2 / 3 * 1 + 4 / 3 * third) / 2)

    def test_a_text_that_repeats_itself_has_none(self) -> None:
        assert ngram_entropy("no no no no no") == 0
        assert ngram_entropy("") == 0

    def test_words_are_told_apart_without_a_download(self) -> None:
        assert split_words("He didn't go, did he?") == ["He", "did", "n't", "go", ",", "did", "he", "?"]

    def test_texts_are_seeded_and_no_batch_changes_them(self, gpt2: EditableModel) -> None:
        prompts = [(5, 6), (7, 8, 9), (10, 11), (12, 13, 14)]
        whole = sample_tokens(gpt2, prompts, seed=3, length=12)
        assert whole == sample_tokens(gpt2, prompts, seed=3, length=12, tokens_at_once=1)
        assert whole != sample_tokens(gpt2, prompts, seed=4, length=12)
        assert [len(text) for text in whole] == [12] * 4

    def test_each_token_is_among_the_likeliest(self, gpt2: EditableModel) -> None:
        (text,) = sample_tokens(gpt2, [(5, 6)], length=8, top_k=2)
        ids = torch.tensor([[5, 6, *text]])
        with torch.no_grad():
            best = gpt2.model(input_ids=ids).logits[0].topk(3).indices
        assert all(token in best[1 + place] for place, token in enumerate(text))
        greedy = sample_tokens(gpt2, [(5, 6)], seed=1, length=8, top_k=1)
        assert greedy == sample_tokens(gpt2, [(5, 6)], seed=2, length=8, top_k=1)

    def test_a_text_ends_where_the_context_is_full(self) -> None:
        assert len(sample_tokens(fresh_model(length=10), [(5, 6, 7)], length=50)[0]) == 8

    def test_a_broken_model_writes_nothing(self) -> None:
        model = fresh_model()
        with torch.no_grad():
            model.site("ffn", 3).weight.fill_(torch.nan)
        assert sample_tokens(model, [(5, 6)], length=5) == [()]

    def test_a_record_is_the_mean_of_its_texts(self, gpt2: EditableModel) -> None:
        results = evaluate(gpt2, [FACT], fluency=True)
        writing = results.records[0].after.writing
        assert writing is not None
        assert writing.prompts == FACT.generation_prompts
        mean = sum(ngram_entropy(text) for text in writing.texts) / 2
        assert results.scores()["fluency"].mean == pytest.approx(mean)  # type: ignore[union-attr]
        assert results.scores()["consistency"] is not None

    def test_it_is_measured_on_request_only_and_where_there_are_prompts(self, gpt2: EditableModel) -> None:
        assert evaluate(gpt2, [FACT]).scores()["fluency"] is None
        assert (
            evaluate(gpt2, [replace(FACT, generation_prompts=())], fluency=True).scores()["fluency"] is None
        )


class TestConsistency:
    texts: ClassVar = {("home", "Port Avel"): ["red boats", "red sea"], ("home", "Q7"): ["old mills"]}

    def test_the_cosine_by_hand(self) -> None:
        references = fit_references({("home", "Port Avel"): ["red boats"]})
        # One text, so every term has one weight: "red boats" against "red" is 1 / sqrt 2.
        bare = replace(FACT, reference_texts=())
        assert references.similarity(bare, ["red"]) == pytest.approx(1 / math.sqrt(2))
        assert references.similarity(bare, ["red", "boats"]) == pytest.approx(1)
        assert references.similarity(bare, ["nothing known"]) == 0

    def test_the_published_identity_goes_before_the_name(self) -> None:
        references = fit_references(self.texts)
        bare = replace(FACT, reference_texts=())
        assert references.of(bare) == ["red boats", "red sea"]
        assert references.of(replace(bare, target_id="Q7")) == ["old mills"]
        assert references.of(FACT) == FACT.reference_texts
        assert references.similarity(replace(bare, relation_id="other"), ["red"]) is None

    def test_the_published_layout_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        references = fit_references(self.texts)
        references.save(tmp_path / "refs")
        read = load_references(tmp_path / "refs")
        bare = replace(FACT, reference_texts=())
        assert read.texts == references.texts
        assert read.similarity(bare, ["red mills"]) == references.similarity(bare, ["red mills"])

    @pytest.mark.parametrize("name", [SNIPPETS, VOCABULARY, IDF])
    def test_a_missing_file_is_named(self, tmp_path: Path, name: str) -> None:
        fit_references(self.texts).save(tmp_path / "refs")
        (tmp_path / "refs" / name).unlink()
        with pytest.raises(SettingsError, match=name):
            load_references(tmp_path / "refs")

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        fit_references(self.texts).save(tmp_path / "refs")
        (tmp_path / "refs" / IDF).write_bytes(pickle.dumps([1.0]))
        with pytest.raises(SettingsError, match="without unpickling"):
            load_references(tmp_path / "refs")
        np.save(tmp_path / "refs" / IDF, np.array([1.0, None], dtype=object), allow_pickle=True)
        with pytest.raises(SettingsError, match="without unpickling"):
            load_references(tmp_path / "refs")

    def test_files_that_do_not_belong_together_are_refused(self, tmp_path: Path) -> None:
        fit_references(self.texts).save(tmp_path / "refs")
        np.save(tmp_path / "refs" / IDF, np.ones(2), allow_pickle=False)
        with pytest.raises(SettingsError, match="do not belong together"):
            load_references(tmp_path / "refs")

    def test_a_wrong_entry_is_named(self, tmp_path: Path) -> None:
        fit_references(self.texts).save(tmp_path / "refs")
        (tmp_path / "refs" / SNIPPETS).write_text(json.dumps([{"relation_id": "home"}]))
        with pytest.raises(SettingsError, match="entry 0"):
            load_references(tmp_path / "refs")


class TestPerplexity:
    def test_both_counts_by_hand(self, gpt2: EditableModel) -> None:
        (text,) = measure_texts(gpt2, SENTENCES[:1])
        ids = [int(token) for token in gpt2.tokenizer(SENTENCES[0])["input_ids"]]
        with torch.no_grad():
            log_p = gpt2.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        total = sum(float(log_p[place, token]) for place, token in enumerate(ids[1:]))
        assert text.tokens == len(ids)
        assert text.perplexity == pytest.approx(math.exp(-total / len(ids)))
        assert text.textbook_perplexity == pytest.approx(math.exp(-total / (len(ids) - 1)))

    def test_the_score_is_the_mean_over_texts_with_its_interval(self, gpt2: EditableModel) -> None:
        results = evaluate(gpt2, [FACT], texts=SENTENCES)
        found = results.scores()["me_ppl_50"]
        assert found is not None
        assert found.count == len(SENTENCES)
        assert found.mean == pytest.approx(text_perplexity(gpt2, SENTENCES))
        assert found.margin is not None
        assert results.scores("before")["me_ppl_50"] is None

    def test_files_of_texts(self, tmp_path: Path) -> None:
        published, lines = tmp_path / "me_ppl_50.json", tmp_path / "texts.txt"
        published.write_text(json.dumps([{"Corpus": "C4", "Text": " one two"}, "three"]))
        lines.write_text("one two\n\nthree\n")
        assert read_texts(published) == [" one two", "three"]
        assert read_texts(lines) == ["one two", "three"]

    @pytest.mark.parametrize("content", ["[]", "[{}]", "{", '{"a": 1}'])
    def test_a_file_of_something_else(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(SettingsError, match=r"x\.json"):
            read_texts(tmp_path / "x.json")

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="no file of texts"):
            read_texts(tmp_path / "x.json")


class TestPrefixes:
    def test_each_has_fifty_tokens_and_ends_with_a_sentence(self, gpt2: EditableModel) -> None:
        prefixes = unrelated_prefixes(gpt2)
        assert len(set(prefixes)) == len(prefixes)
        for prefix in prefixes:
            assert LENGTH - 12 < len(gpt2.tokenizer(prefix).input_ids) <= LENGTH
            assert prefix.endswith(".")

    def test_the_fact_stands_behind_one_of_them(self, gpt2: EditableModel) -> None:
        (record,) = evaluate(gpt2, [FACT]).records
        (question,) = record.after.prefixed
        prefix = question.prompt.removesuffix(f" {FACT.question}")
        assert prefix in unrelated_prefixes(gpt2)
        assert question.wanted.text == FACT.target_new
        assert question.rival is not None

    def test_without_room_it_is_not_asked(self) -> None:
        (record,) = evaluate(fresh_model(length=40), [FACT]).records
        assert record.after.prefixed == ()


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
