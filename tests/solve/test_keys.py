"""Keys and values: against a plain version, in any batches and order; sums over chunks."""

from dataclasses import replace

import pytest
import torch

from errata.solve import keys as keys_module
from errata.solve.keys import KeyPrompts, average_over_contexts, context_weights
from errata.values.descent import place_path
from families import CONTEXTS, FACTS, FAMILIES, tiny_model
from plain import double_throughout, modules_of, plain_key, plain_value
from tolerances import DEPTH, FORWARD, assert_agree


def test_the_bare_prompt_weighs_one_half() -> None:
    """By hand: (8 + mean(2, 4)) / 2 = 5.5 and (0 + mean(1, 5)) / 2 = 1.5."""
    each = torch.tensor([[[8.0, 0.0], [2.0, 1.0], [4.0, 5.0]]])
    assert average_over_contexts(each, "half").tolist() == [[5.5, 1.5]]


def test_or_every_context_weighs_the_same() -> None:
    """By hand: (8 + 2 + 5) / 3 = 5 and (0 + 1 + 5) / 3 = 2."""
    each = torch.tensor([[[8.0, 0.0], [2.0, 1.0], [5.0, 5.0]]])
    assert average_over_contexts(each, "plain").tolist() == [[5.0, 2.0]]


@pytest.mark.parametrize("average", ["half", "plain"])
def test_without_other_contexts_the_key_is_the_bare_one(average: str) -> None:
    each = torch.tensor([[[8.0, -1.0]], [[3.0, 4.0]]])
    assert average_over_contexts(each, average).tolist() == [[8.0, -1.0], [3.0, 4.0]]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_version_agrees(family: str, dtype: str) -> None:
    model = tiny_model(family, dtype)
    prompts = KeyPrompts.of(model, FACTS, CONTEXTS)
    assert prompts.facts == len(FACTS)

    def assert_close(mine: torch.Tensor, theirs: torch.Tensor) -> None:
        assert mine.dtype == torch.float64
        assert_agree(mine, theirs, FORWARD, DEPTH, dtype=model.dtype)

    with double_throughout(model) if dtype == "float64" else torch.no_grad():
        for layer, average in ((0, "plain"), (2, "half")):
            modules = modules_of(model, layer)
            for kind in ("attention", "ffn"):
                site, module = model.site(kind, layer), getattr(modules, kind)
                keys = [plain_key(model, fact, CONTEXTS, module, average) for fact in FACTS]
                assert_close(prompts.keys(site, average), torch.stack(keys))
        for place in ("attention", "ffn", "block"):
            values = [plain_value(model, fact, getattr(modules, place)) for fact in FACTS]
            assert_close(prompts.values(place_path(model, place, 2)), torch.stack(values))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_comes_after_the_subject_plays_no_part(family: str) -> None:
    model = tiny_model(family)
    others = [
        replace(fact, prompt=fact.prompt.split("{}")[0] + "{} , I think ,", target_new="harp")
        for fact in FACTS
    ]
    one, other = KeyPrompts.of(model, FACTS, CONTEXTS), KeyPrompts.of(model, others, CONTEXTS)
    assert all(len(row.text.ids) == row.lookup + 1 for row in one.rows)
    assert [row.text.ids for row in one.rows] == [row.text.ids for row in other.rows]
    site = model.site("ffn", 2)
    assert torch.equal(one.keys(site, "half"), other.keys(site, "half"))
    assert torch.equal(one.values(site.path), other.values(site.path))


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_and_order_do_not_matter(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(family, "float64")
    site = model.site("ffn", 2)
    with double_throughout(model):
        at_once = KeyPrompts.of(model, FACTS, CONTEXTS).keys(site, "half")
        monkeypatch.setattr(keys_module, "TOKENS_AT_ONCE", 1)
        one_by_one = KeyPrompts.of(model, FACTS[::-1], CONTEXTS).keys(site, "half")
    assert_agree(one_by_one.flip(0), at_once, FORWARD, DEPTH)


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_are_read_with_the_weights_as_they_stand(family: str) -> None:
    model = tiny_model(family)
    below, site, above = (model.site("ffn", layer) for layer in (0, 1, 2))
    prompts = KeyPrompts.of(model, FACTS, CONTEXTS)
    key, value, above_it = prompts.keys(site, "half"), prompts.values(site.path), prompts.keys(above, "half")
    with model.ledger.temporary():
        model.ledger.write(below, 1.5 * below.weight)
        assert not torch.equal(prompts.keys(site, "half"), key)
        assert not torch.equal(prompts.values(site.path), value)
    with model.ledger.temporary():
        model.ledger.write(site, 1.5 * site.weight)
        assert torch.equal(prompts.keys(site, "half"), key)
        assert not torch.equal(prompts.values(site.path), value)
        assert not torch.equal(prompts.keys(above, "half"), above_it)
    assert torch.equal(prompts.keys(above, "half"), above_it)


@pytest.mark.parametrize("average", ["half", "plain"])
@pytest.mark.parametrize("contexts", [1, 2, 6])
def test_the_weights_of_contexts_are_those_of_the_mean(contexts: int, average: str) -> None:
    each = torch.randn(5, contexts, 3, dtype=torch.float64)
    weighted = (context_weights(contexts, average)[None, :, None] * each).sum(dim=1)
    assert_agree(weighted, average_over_contexts(each, average), 16)
