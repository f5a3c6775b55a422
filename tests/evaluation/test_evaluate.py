"""Evaluation against a slow version of itself: one prompt, one answer, one plain call of the model at a time."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import errata
from errata.edits.deltas import Delta
from errata.edits.edit import Edit, EditOrigin
from errata.errors import AlreadyApplied, FactError, PromptTooLong
from errata.evaluation.evaluate import evaluate
from errata.evaluation.generation import LENGTH, SENTENCE_END, continue_texts, greedy
from errata.evaluation.probabilities import make_plan, measure
from errata.evaluation.questions import Edited, Pair, sheets
from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.models.loading import from_parts
from errata.models.model import EditableModel
from errata.results.outcomes import NO_TOKEN, Answer, Outcomes, Question
from errata.results.results import Results, load_results
from families import FAMILIES, tiny_model

FACTS = (
    Fact(
        prompt="The capital of {} is",
        subject="France",
        target_new="Rome",
        target_true="Paris",
        paraphrase_prompts=("France, whose capital is", "They say: the capital of France is"),
        neighborhood_prompts=("The capital of Valdoria is", Probe("Berlin lies near", "Kestrel")),
        same_subject_prompts=(Probe("France is near", "the sea"), Probe("The capital of France is", "Paris")),
        unrelated_prompts=(Probe("Edda works in", "the field"), Probe("In France they play the", "violin")),
        case_id=7,
        relation_id="P36",
    ),
    Fact("{} lives in", "Jonas", "New York", "New", paraphrase_prompts=("Where? Jonas lives in",)),
    Fact("{} was born in", "Mira Tolland", "Lindale near Kestrel", "Oslo", case_id="b"),
    Fact("{} plays the", "Zoë Łuk", "violin", neighborhood_prompts=("Jonas plays the",)),
    Fact("Near the sea lives {} in", "Mira", "a", "the north of Valdoria, they say"),
)


def exact_model(family: str) -> EditableModel:
    """A tiny model in float64, where the order of sums hardly shows."""
    return tiny_model(family, "float64")


@pytest.fixture
def gpt2() -> EditableModel:
    return exact_model("gpt2")


# The slow version.


def slow_ids(model: EditableModel, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """Prompt and target by tokenising twice: right where the tokens of the prompt do not depend on what follows."""
    prompt_ids = [int(token) for token in model.tokenizer(prompt)["input_ids"]]
    ids = [int(token) for token in model.tokenizer(f"{prompt} {target}")["input_ids"]]
    assert ids[: len(prompt_ids)] == prompt_ids
    return prompt_ids, ids[len(prompt_ids) :]


def slow_logits(model: EditableModel, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.model(input_ids=torch.tensor([list(ids)])).logits[0]


def slow_answer(model: EditableModel, prompt: str, target: str) -> Answer:
    prompt_ids, target_ids = slow_ids(model, prompt, target)
    log_p = slow_logits(model, [*prompt_ids, *target_ids][:-1]).log_softmax(-1)
    places = range(len(prompt_ids) - 1, len(prompt_ids) + len(target_ids) - 1)
    values = tuple(float(log_p[place, token]) for place, token in zip(places, target_ids, strict=True))
    predicted = tuple(int(log_p[place].argmax()) for place in places)
    return Answer(
        target, tuple(target_ids), values, predicted, model.tokenizer.decode(list(predicted)).strip()
    )


def slow_greedy(model: EditableModel, prompt: str, length: int) -> list[int]:
    ids = [int(token) for token in model.tokenizer(prompt)["input_ids"]]
    written: list[int] = []
    for _ in range(length):
        best = int(slow_logits(model, [*ids, *written])[-1].argmax())
        if best in model.tokenizer.all_special_ids:
            break
        written.append(best)
    return written


def assert_same_answer(fast: Answer, slow: Answer) -> None:
    assert (fast.text, fast.tokens, fast.predicted) == (slow.text, slow.tokens, slow.predicted)
    assert fast.predicted_text == slow.predicted_text
    # Some families compute their attention in float32 whatever the weights are.
    assert fast.log_probabilities == pytest.approx(slow.log_probabilities, abs=1e-6)


def assert_same_outcomes(one: Outcomes, other: Outcomes) -> None:
    assert one.continuation == other.continuation
    assert len(one.questions) == len(other.questions)
    for mine, theirs in zip(one.questions, other.questions, strict=True):
        assert mine.prompt == theirs.prompt
        assert (mine.rival is None) == (theirs.rival is None)
        assert_same_answer(mine.wanted, theirs.wanted)
        if mine.rival is not None and theirs.rival is not None:
            assert_same_answer(mine.rival, theirs.rival)


def slow_question(model: EditableModel, prompt: str, wanted: str, rival: str | None) -> Question:
    return Question(
        prompt,
        slow_answer(model, prompt, wanted),
        None if rival is None else slow_answer(model, prompt, rival),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_outcomes_are_those_of_the_slow_version(family: str) -> None:
    model = exact_model(family)
    results = evaluate(model, FACTS)
    for fact, record in zip(FACTS, results.records, strict=True):
        new, true = fact.target_new, fact.target_true
        rewrite = [slow_question(model, fact.question, new, true)]
        paraphrases = [slow_question(model, prompt, new, true) for prompt in fact.paraphrase_prompts]
        neighborhood = [slow_question(model, probe.prompt, probe.target, new) for probe in fact.neighborhood]
        same = [slow_question(model, p.prompt, p.target, None) for p in fact.same_subject_prompts[:1]]
        unrelated = [slow_question(model, p.prompt, p.target, None) for p in fact.unrelated_prompts[:1]]
        assert record.before is None
        assert len(record.after.efficacy) == 1
        prefixed = [slow_question(model, question.prompt, new, true) for question in record.after.prefixed]
        expected = Outcomes(
            tuple(rewrite),
            tuple(paraphrases),
            tuple(neighborhood),
            tuple(same),
            tuple(unrelated),
            prefixed=tuple(prefixed),
        )
        assert_same_outcomes(replace(record.after, continuation=None), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_continuations_are_those_of_the_slow_version(family: str) -> None:
    model = exact_model(family)
    results = evaluate(model, FACTS)
    for fact, record in zip(FACTS, results.records, strict=True):
        said = record.after.continuation
        target = slow_ids(model, fact.question, fact.target_new)[1]
        slow = slow_greedy(model, fact.question, max(LENGTH, len(target)))
        assert said is not None
        assert (said.prompt, said.target) == (fact.question, fact.target_new)
        assert said.target_tokens == tuple(target)
        assert said.tokens == tuple(slow[: len(target)])
        assert said.answer == model.tokenizer.decode(slow[: len(target)]).strip()
        sentence = SENTENCE_END.search(text := model.tokenizer.decode(slow).strip())
        assert said.text == (text if sentence is None else text[: sentence.end()].strip())
        assert said.exact == (slow[: len(target)] == target)


# Order and batches.


@given(order=st.permutations(range(len(FACTS))))
@settings(max_examples=5, deadline=None)
def test_the_order_of_facts_changes_nothing(order: list[int]) -> None:
    model = exact_model("gpt2")
    plain = evaluate(model, FACTS).records
    shuffled = evaluate(model, [FACTS[index] for index in order]).records
    for index, record in zip(order, shuffled, strict=True):
        assert record.prompt == plain[index].prompt
        assert_same_outcomes(record.after, plain[index].after)


PAIRS = [pair for sheet in sheets(FACTS, Edited(FACTS)) for pair in sheet.pairs]


@given(tokens_at_once=st.integers(1, 400))
@settings(max_examples=8, deadline=None)
def test_the_size_of_batches_changes_nothing(tokens_at_once: int) -> None:
    model = exact_model("gpt2")
    plan = make_plan(model, PAIRS)
    whole, parts = measure(model, plan), measure(model, plan, tokens_at_once=tokens_at_once)
    assert whole.keys() == parts.keys() == {(pair.prompt, pair.target) for pair in PAIRS}
    for key, answer in whole.items():
        assert_same_answer(parts[key], answer)


@given(tokens_at_once=st.integers(1, 200))
@settings(max_examples=5, deadline=None)
def test_the_size_of_batches_changes_nothing_in_what_is_written(tokens_at_once: int) -> None:
    model = exact_model("gpt2")
    ids = [tuple(map(int, model.tokenizer(fact.question)["input_ids"])) for fact in FACTS]
    lengths = [3, 9, 1, 14, 5]
    written = greedy(model, ids, lengths, tokens_at_once=tokens_at_once)
    assert written == greedy(model, ids, lengths)
    assert written == [
        tuple(slow_greedy(model, fact.question, length)) for fact, length in zip(FACTS, lengths, strict=True)
    ]


def test_prompts_of_like_length_are_written_on_together() -> None:
    model = exact_model("gpt2")
    ids = [tuple(range(5, 5 + length)) for length in (4, 6, 7)]
    passes: list[int] = []
    with model.hooked({model.block_path(0): lambda value: passes.append(len(value))}, "input"):
        written = greedy(model, ids, [10, 10, 10])
    assert passes == [3] * 13
    assert written == [tuple(greedy(model, [prompt], [10])[0]) for prompt in ids]


class TestPlan:
    def rows(self, model: EditableModel, *pairs: tuple[str, str]) -> list[tuple[int, ...]]:
        return list(make_plan(model, [Pair(*pair, "here") for pair in pairs]).rows)

    def test_a_pair_that_comes_twice_runs_once(self, gpt2: EditableModel) -> None:
        assert len(self.rows(gpt2, ("Jonas lives in", "Rome"), ("Jonas lives in", "Rome"))) == 1

    def test_answers_of_one_token_share_their_prompt(self, gpt2: EditableModel) -> None:
        pairs = [("Jonas plays", "the"), ("Jonas plays", "in")]
        assert all(len(slow_ids(gpt2, *pair)[1]) == 1 for pair in pairs)
        assert len(self.rows(gpt2, *pairs)) == 1

    def test_a_text_that_another_begins_with_is_not_run(self, gpt2: EditableModel) -> None:
        rows = self.rows(
            gpt2,
            ("Jonas", "plays the harp"),
            ("Jonas plays", "the harp in Port Avel"),
            ("Jonas plays the", "harp"),
            ("Jonas plays the", "violin in Port Avel"),
        )
        assert len(rows) == 2

    def test_batches_stay_within_their_limits(self, gpt2: EditableModel) -> None:
        sizes: list[tuple[int, int]] = []
        model = Watched(gpt2, sizes)
        plan = make_plan(gpt2, PAIRS)
        measure(model, plan, tokens_at_once=64)
        assert sum(rows for rows, _ in sizes) == len(plan.rows)
        assert len(sizes) > 1
        assert all(rows * width <= 64 for rows, width in sizes)
        assert [width for _, width in sizes] == sorted((width for _, width in sizes), reverse=True)


def Watched(model: EditableModel, sizes: list[tuple[int, int]]) -> EditableModel:
    """The same model, noting rows and width of each batch that it is given."""

    class Watching(EditableModel):
        def logits_at(self, tokens, rows, positions):  # type: ignore[no-untyped-def]
            sizes.append((tokens.ids.shape[0], tokens.ids.shape[1]))
            return super().logits_at(tokens, rows, positions)

    return Watching(model.model, model.tokenizer, model.architecture, model.name)


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


# With an edit.


def edit_of(model: EditableModel, facts: Sequence[Fact] = FACTS, size: float = 1.0) -> Edit:
    """An edit that changes one FFN at random."""
    site = model.site("ffn", 0)
    generator = torch.Generator().manual_seed(1)
    left = size * torch.randn(site.d_out, 2, generator=generator, dtype=torch.float64)
    right = torch.randn(2, site.d_in, generator=generator, dtype=torch.float64)
    origin = EditOrigin(
        method="pmet",
        settings={"layers": (0, 1), "learning_rate": 0.1},
        contexts=("", "The."),
        seed=3,
        model=model.name,
        revision=None,
        fingerprint=model.measure_fingerprint(),
        model_dtype="float64",
        covariance="none",
        preset="none",
        versions={"errata": "0"},
        created="2025-01-01",
    )
    return Edit({site.path: Delta(left, right)}, tuple(facts), origin)


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


# A model that knows three sentences, so that the right answers are known without asking it.

SENTENCES = (
    "The capital of France is Paris. It lies on a river.",
    "Jonas lives in New York now.",
    "Mira plays the violin!",
    "Who plays the harp? Nobody does.",
)


@cache
def parrot() -> EditableModel:
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<end>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(fast),
        n_embd=48,
        n_layer=2,
        n_head=2,
        n_positions=40,
        attn_pdrop=0,
        embd_pdrop=0,
        resid_pdrop=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    batch = fast([sentence + "<end>" for sentence in SENTENCES], return_tensors="pt", padding=True)
    lengths = batch["attention_mask"].sum(dim=1, keepdim=True)
    labels = batch["input_ids"].masked_fill(torch.arange(batch["input_ids"].shape[1])[None] >= lengths, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        logits = model(**batch).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1, "the parrot did not learn its sentences"
    return from_parts(model, fast, "parrot")


class TestParrot:
    fact = Fact(
        "The capital of {} is",
        "France",
        "Lyon",
        "Paris",
        neighborhood_prompts=(Probe("Jonas lives in", "New York"), Probe("Mira plays the", "harp")),
        same_subject_prompts=(Probe("The capital of France is Paris. It lies on", "a river"),),
        unrelated_prompts=(Probe("Jonas lives in New", "York"), Probe("Jonas lives in New", "harp")),
    )

    def means(self, *facts: Fact) -> dict[str, float | None]:
        scores = evaluate(parrot(), facts).scores()
        return {name: score and score.mean for name, score in scores.items()}

    def test_a_fact_that_it_does_not_know(self) -> None:
        assert (
            self.means(self.fact)
            == {
                "efficacy_success": 0,
                "generalization_success": None,
                "specificity_success": 1,  # "harp" is not the answer, but likelier than "Lyon", which it never read
                "score_success": None,
                "efficacy_accuracy": 0,
                "generalization_accuracy": None,
                "specificity_accuracy": 0.5,
                "score_accuracy": None,
                "specificity_unchanged": None,
                "efficacy_token_accuracy": 0,
                "generalization_token_accuracy": None,
                "specificity_token_accuracy": 0.75,  # of "New York" both tokens, of "harp" half
                "score_token_accuracy": None,
                "fluency": None,
                "consistency": None,
                "me_ppl_50": None,
                "me_ppl_50_textbook": None,
                "generation_accuracy": 0,
                "whole_answer_accuracy": 0,
                "prefixed_accuracy": None,  # no room
                "same_subject_accuracy": 1,
                "unrelated_accuracy": 0.5,
                "reversed_accuracy": None,
                "two_hop_accuracy": None,
            }
        )

    def test_a_fact_that_it_knows(self) -> None:
        means = self.means(replace(self.fact, target_new="Paris", target_true="Lyon"))
        assert means["efficacy_success"] == means["efficacy_accuracy"] == means["generation_accuracy"] == 1
        assert means["specificity_success"] == 1

    def test_what_it_says_ends_with_the_sentence(self) -> None:
        said = continue_texts(
            parrot(), ["The capital of France is", "Mira plays", "Who plays", "Jonas lives"]
        )
        assert said == ["Paris.", "the violin!", "the harp?", "in New York now."]

    def test_it_writes_no_longer_than_it_must(self) -> None:
        model = parrot()
        prompt = tuple(map(int, model.tokenizer("The capital of France is")["input_ids"]))
        (short,), (long,) = greedy(model, [prompt], [12], [0]), greedy(model, [prompt], [12])
        assert len(short) < len(long)
        assert long[: len(short)] == short
        assert model.tokenizer.decode(short).startswith(" Paris. It")

    def test_a_sentence_ends_where_text_goes_on_after_its_full_stop(self) -> None:
        texts = ("A. B", 'A." B', "3.5 m. B", "U.N. B", "A.", "A\nB", "Who? B")
        found = [text[: end.end()] if (end := SENTENCE_END.search(text)) else None for text in texts]
        assert found == ["A.", 'A."', "3.5 m.", "U.N.", None, "A\n", "Who?"]

    def test_an_answer_of_several_tokens_is_written_freely(self) -> None:
        record = evaluate(parrot(), [Fact("{} lives in", "Jonas", "New York")]).records[0]
        said = record.after.continuation
        assert said is not None
        assert said.exact
        assert (said.answer, said.text) == ("New York", "New York now.")

    def test_the_end_of_the_text_is_no_part_of_an_answer(self) -> None:
        model = parrot()
        record = evaluate(model, [Fact("Mira plays the {}", "violin", "! again")]).records[0]
        said = record.after.continuation
        assert said is not None
        assert len(said.tokens) < len(said.target_tokens)
        assert not said.exact

    def test_generation_can_be_left_out(self) -> None:
        results = evaluate(parrot(), [self.fact], generate=False)
        assert results.records[0].after.continuation is None
        assert results.scores()["generation_accuracy"] is None
        assert results.settings["generate"] is False

    def test_the_public_name(self) -> None:
        assert errata.evaluate is evaluate


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
