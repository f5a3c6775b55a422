"""Component similarity: a hidden state before and after attention and FFN."""

import pytest
import torch

from errata.analysis.similarity import component_similarity
from errata.errors import FactError
from errata.passes.prompts import encode_text, pad
from families import FACTS, tiny_model
from tiny import fresh_model


@pytest.mark.parametrize("family", ["gpt2", "gptj"])
def test_similarities_are_those_of_a_plain_run(family: str) -> None:
    model, fact = tiny_model(family), FACTS[0]
    found = component_similarity(model, [fact], top=5)
    tokens = pad([encode_text(model, fact.question, None).ids], model)
    with torch.no_grad():
        hidden = model.model(input_ids=tokens.ids, output_hidden_states=True).hidden_states
    last = int(tokens.mask.sum()) - 1
    path = model.site("attention", 0).path
    attended = model.values_at(tokens, torch.tensor([last]), outputs_of=[path])[path][0]
    cosine = torch.nn.functional.cosine_similarity(hidden[0][0, last].double(), attended.double(), dim=0)
    assert found.cosine["attention"][0] == pytest.approx(float(cosine), abs=1e-6)


def test_there_is_a_number_for_each_block_and_component() -> None:
    model = fresh_model()
    found = component_similarity(model, FACTS, top=5)
    for values in (found.cosine, found.jaccard):
        assert {kind: len(each) for kind, each in values.items()} == {
            "attention": model.layers,
            "ffn": model.layers,
        }
    assert all(0 <= value <= 1 for each in found.jaccard.values() for value in each)


def test_facts_of_other_lengths_change_nothing() -> None:
    model = fresh_model()
    together = component_similarity(model, FACTS, top=5)
    alone = [component_similarity(model, [fact], top=5).cosine["ffn"][1] for fact in FACTS]
    assert together.cosine["ffn"][1] == pytest.approx(sum(alone) / len(alone), abs=1e-6)


def test_no_facts_are_refused() -> None:
    with pytest.raises(FactError):
        component_similarity(fresh_model(), [])
