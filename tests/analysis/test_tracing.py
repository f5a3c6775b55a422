import pytest
import torch

from errata.analysis.tracing import trace
from errata.errors import FactError
from errata.facts.fact import Fact
from families import FACTS, FAMILIES, tiny_model

FAMILY_NAMES = pytest.mark.parametrize("family", FAMILIES)
BEFORE_THE_END = [fact for fact in FACTS if not fact.prompt.endswith("{}")]


@FAMILY_NAMES
def test_without_noise_nothing_changes(family: str) -> None:
    for place in ("subject", "end"):
        traced = trace(tiny_model(family, "float64"), FACTS, place, noise=0.0)
        torch.testing.assert_close(traced.noised, traced.clean)
        torch.testing.assert_close(traced.restored, traced.clean.expand_as(traced.restored))


@FAMILY_NAMES
def test_the_prompts_end_is_not_drowned_before_the_first_block(family: str) -> None:
    traced = trace(tiny_model(family, "float64"), BEFORE_THE_END, "end")
    torch.testing.assert_close(traced.restored[0], traced.noised)
    assert not torch.allclose(traced.noised, traced.clean)


@FAMILY_NAMES
def test_restoring_changes_the_answer_and_the_model_stays_as_it_was(family: str) -> None:
    model = tiny_model(family, "float64")
    first = trace(model, FACTS, "subject")
    assert first.restored.shape == (model.layers, len(FACTS))
    assert not torch.allclose(first.restored, first.noised.expand_as(first.restored))
    torch.testing.assert_close(trace(model, FACTS, "subject").restored, first.restored, rtol=0, atol=0)
    assert len(first.curve) == model.layers


def test_agrees_with_plain_hooks() -> None:
    """One fact, one token of noise put in by hand, one state of one block put back by hand."""
    model = tiny_model("gpt2", "float64")
    fact = FACTS[0]
    traced = trace(model, [fact], "subject", seed=3)
    body = model.model.transformer
    text = f"{fact.question} {fact.target_true}"
    encoded = model.tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
    ids, spans = encoded["input_ids"], encoded["offset_mapping"][0].tolist()
    start, end = fact.subject_span
    subject = [i for i, (left, right) in enumerate(spans) if left < end and right > start]
    last = max(i for i, (left, _) in enumerate(spans) if left < len(fact.question))
    embeddings = body.wte(ids).detach()
    width = max(16, ids.shape[1])
    scale = 3.0 * embeddings[0, subject].std()
    draw = torch.randn((1, width, 32), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    noised = embeddings.clone()
    noised[0, subject] += draw[0, subject] * scale
    with torch.no_grad():
        state = model.model(inputs_embeds=embeddings, output_hidden_states=True).hidden_states[2][
            0, subject[-1]
        ]

        def put_back(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            hidden = args[0].clone()
            hidden[0, subject[-1]] = state
            return (hidden, *args[1:])

        handle = body.h[2].register_forward_pre_hook(put_back)
        logits = model.model(inputs_embeds=noised).logits[0, last]
        handle.remove()
    expected = logits.softmax(-1)[ids[0, last + 1]]
    torch.testing.assert_close(traced.restored[2, 0], expected)


def test_what_cannot_be_traced_is_named() -> None:
    with pytest.raises(FactError, match="no facts"):
        trace(tiny_model("gpt2"), [], "end")
    with pytest.raises(FactError, match="'Zentro' has no target_true"):
        trace(tiny_model("gpt2"), [Fact("{} was created by", "Zentro", "Bellwether")], "end")
