"""A model that knows three sentences: the right scores are known without asking it."""

from dataclasses import replace
from functools import cache

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import errata
from errata.evaluation.evaluate import evaluate
from errata.evaluation.generation import SENTENCE_END, continue_texts, greedy
from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.models.loading import from_parts
from errata.models.model import EditableModel

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
