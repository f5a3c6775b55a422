"""Looking into a model and writing to it: hooks, sites, logits, values at a place, fingerprints, padding."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from errata.errors import LayerOutOfRange
from errata.models.model import SHORTEST, EditableModel, Tokens
from errata.passes.prompts import pad
from families import tiny_model
from model_cases import every_family
from profiles import examples
from tolerances import DEPTH, FORWARD, assert_agree

LAYERS = 4


LONG = 18
"""More tokens than the shortest batch, and than twice the sliding windows."""


def ids_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(3, 300, (length,), generator=generator).tolist() for length in lengths]


def numbers(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.long)


def hooks_of(model: EditableModel) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.model.modules())


@contextmanager
def calls_of(model: EditableModel, *paths: str) -> Iterator[list[str]]:
    """The order in which modules are called."""
    called: list[str] = []
    handles = [
        model.model.get_submodule(path).register_forward_pre_hook(
            lambda module, args, path=path: called.append(path)
        )
        for path in paths
    ]
    yield called
    for handle in handles:
        handle.remove()


# --- padding -----------------------------------------------------------------------------------------------------


def assert_alone_as_together(model: EditableModel, lengths: list[int], tolerance: float) -> None:
    """Logits, keys and values of each row at its last and its middle token, in one batch and one by one."""
    ids = ids_of(*lengths)
    together = pad(ids, model)
    sites = [model.site(kind, layer).path for kind in ("ffn", "attention") for layer in (1, 3)]
    blocks = [model.block_path(layer) for layer in range(LAYERS)]
    for places in ([length - 1 for length in lengths], [length // 2 for length in lengths]):
        logits = model.logits_at(together, torch.arange(len(ids)), numbers(*places))
        values = model.values_at(together, numbers(*places), sites, blocks)
        for row, (alone, place) in enumerate(zip(ids, places, strict=True)):
            single = pad([alone], model)
            pairs = [(logits[row], model.logits_at(single, numbers(0), numbers(place))[0])]
            own = model.values_at(single, numbers(place), sites, blocks)
            pairs += [(values[path][row], own[path][0]) for path in own]
            for got, wanted in pairs:
                assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


@every_family
@examples(6)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5))
@example(lengths=[3, 60])
@example(lengths=[1, 2, 17, 33])
def test_padding_never_changes_a_result(name: str, lengths: list[int]) -> None:
    assert_alone_as_together(tiny_model(name, "float64"), lengths, 1e-12)


@every_family
def test_padding_changes_float32_by_its_rounding_alone(name: str) -> None:
    assert_alone_as_together(tiny_model(name), [3, 60, 21], 1e-5)


@every_family
def test_what_stands_in_the_padding_never_matters(name: str) -> None:
    model = tiny_model(name, "float64")
    tokens = pad(ids_of(5, 30), model)
    other = Tokens(torch.where(tokens.mask, tokens.ids, torch.full_like(tokens.ids, 77)), tokens.mask)
    where = (numbers(0, 0, 1), numbers(2, 4, 29))
    assert torch.equal(model.logits_at(tokens, *where), model.logits_at(other, *where))


def test_chosen_rows_are_cut_to_the_longest_of_them() -> None:
    tokens = pad(ids_of(5, 40, 20, 3), tiny_model("gpt2"))
    part = tokens.rows(numbers(3, 2))
    assert torch.equal(part.ids, tokens.ids[[3, 2], :20])
    assert part.mask.sum(dim=1).tolist() == [3, 20]
    assert tokens.rows(numbers(0)).ids.shape == (1, SHORTEST)
    assert tokens.rows(numbers()).ids.shape[0] == 0


# --- logits ------------------------------------------------------------------------------------------------------


@every_family
def test_logits_are_the_models_own(name: str) -> None:
    model = tiny_model(name, "float64")
    (ids,) = ids_of(LONG)
    plain = model.model(input_ids=torch.tensor([ids])).logits[0]
    places = numbers(0, LONG - 1, 7, 7)
    logits = model.logits_at(pad([ids], model), numbers(0, 0, 0, 0), places)
    assert_agree(logits, plain[places], FORWARD, DEPTH)


@every_family
def test_logits_of_a_short_text_are_the_models_own(name: str) -> None:
    """Some families compute attention in float32, in whose last bits a padded row differs from a short one."""
    model = tiny_model(name, "float64")
    (ids,) = ids_of(3)
    plain = model.model(input_ids=torch.tensor([ids])).logits[0]
    logits = model.logits_at(pad([ids], model), numbers(0, 0, 0), torch.arange(3))
    assert_agree(logits, plain, FORWARD, dtype=torch.float32)  # GPT-J attends in float32


def test_the_logits_cap_is_not_left_out() -> None:
    model = tiny_model("gemma2", "float64")
    cap = model.model.config.final_logit_softcapping
    heard: list[Tensor] = []
    tokens = pad(ids_of(LONG), model)
    with model.hooked({model.architecture.head: lambda value: heard.append(value)}, "output"):
        logits = model.logits_at(tokens, numbers(0), numbers(9))
    uncapped = heard[0][0]
    assert not torch.equal(logits, uncapped)
    assert_agree(logits, cap * torch.tanh(uncapped / cap), FORWARD)


def test_the_head_bias_is_not_left_out() -> None:
    model = tiny_model("gptj", "float64")
    head = model.model.get_submodule(model.architecture.head)
    tokens = pad(ids_of(LONG), model)
    before = model.logits_at(tokens, numbers(0), numbers(9))
    kept = head.bias.detach().clone()
    try:
        head.bias += 1.5
        after = model.logits_at(tokens, numbers(0), numbers(9))
    finally:
        head.bias.copy_(kept)
    assert_agree(after, before + 1.5, FORWARD)


@every_family
def test_only_the_places_that_are_read_reach_the_head(name: str) -> None:
    model = tiny_model(name)
    shapes: list[torch.Size] = []
    head = model.model.get_submodule(model.architecture.head)
    handle = head.register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    try:
        model.logits_at(pad(ids_of(9, 30), model), numbers(1, 0), numbers(29, 3))
    finally:
        handle.remove()
    assert shapes == [(1, 2, model.model.config.vocab_size)]


# --- hooks -------------------------------------------------------------------------------------------------------


@every_family
def test_a_change_of_an_output_is_one_of_the_next_input(name: str) -> None:
    """Blocks give tensors in most families and tuples in GPT-J; their inputs come by place or by name."""
    model = tiny_model(name, "float64")
    tokens, where = pad(ids_of(LONG), model), (numbers(0), numbers(LONG - 1))
    clean = model.logits_at(tokens, *where)
    with model.hooked({model.block_path(1): lambda value: value * 1.5}, "output"):
        behind = model.logits_at(tokens, *where)
    with model.hooked({model.block_path(2): lambda value: value * 1.5}, "input"):
        before = model.logits_at(tokens, *where)
    assert torch.equal(behind, before)
    assert (behind - clean).abs().max() > 1e-3
    assert torch.equal(model.logits_at(tokens, *where), clean)


@every_family
def test_inputs_are_seen_however_they_are_given(name: str) -> None:
    """The attention as a whole (called by keyword in most families) hears what its first map hears."""
    model = tiny_model(name, "float64")
    whole = model.site("attention", 1).path.rpartition(".")[0]
    first = next(
        f"{whole}.{path}"
        for path, module in model.model.get_submodule(whole).named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    )
    heard: dict[str, Tensor] = {}
    listen = {path: lambda value, path=path: heard.update({path: value.clone()}) for path in (whole, first)}
    with model.hooked(listen, "input"):
        model.forward(pad(ids_of(LONG), model))
    assert torch.equal(heard[whole], heard[first])
    with model.hooked({whole: lambda value: value * 0}, "input"), model.hooked(listen, "input"):
        model.forward(pad(ids_of(LONG), model))
    assert torch.equal(heard[first], torch.zeros_like(heard[first]))


@every_family
def test_what_a_module_returns_besides_its_value_stays(name: str) -> None:
    """The attention returns a tuple; silencing the whole is silencing its last map."""
    model = tiny_model(name, "float64")
    path = model.site("attention", 1).path
    tokens, where = pad(ids_of(LONG), model), (numbers(0), numbers(9))
    with model.hooked({path: lambda value: value * 0}, "output"):
        last = model.logits_at(tokens, *where)
    with model.hooked({path.rpartition(".")[0]: lambda value: value * 0}, "output"):
        whole = model.logits_at(tokens, *where)
    assert torch.equal(last, whole)


class HookTrouble(Exception):
    pass


def trouble(value: Tensor) -> None:
    raise HookTrouble


def test_hooks_are_gone_whatever_happens() -> None:
    model = tiny_model("llama")
    tokens, block = pad(ids_of(5), model), model.block_path(1)
    before = hooks_of(model)
    with pytest.raises(HookTrouble), model.hooked({block: trouble}, "output"):
        model.forward(tokens)
    assert hooks_of(model) == before
    with model.hooked({block: lambda value: None}, "input"):
        assert hooks_of(model) == before + 1
        with pytest.raises(HookTrouble), model.hooked({block: lambda value: None}, "output"):
            trouble(torch.zeros(1))
        assert hooks_of(model) == before + 1
    assert hooks_of(model) == before
    good_then_bad = {block: lambda value: None, "model.nowhere": lambda value: None}
    with pytest.raises(AttributeError, match="nowhere"), model.hooked(good_then_bad, "input"):
        pass
    assert hooks_of(model) == before
    with pytest.raises(IndexError):
        model.logits_at(pad([[10**6]], model), numbers(0), numbers(0))
    with pytest.raises(IndexError):
        model.values_at(tokens, numbers(10**6), outputs_of=[block])
    assert hooks_of(model) == before


# --- values ------------------------------------------------------------------------------------------------------


@every_family
def test_values_stop_above_the_last_module_needed(name: str) -> None:
    model = tiny_model(name)
    blocks = [model.block_path(layer) for layer in range(LAYERS)]
    key, head = model.site("ffn", 1).path, model.architecture.head
    tokens, places = pad(ids_of(7, 4), model), numbers(6, 3)
    with calls_of(model, *blocks, key, head) as called:
        model.values_at(tokens, places, inputs_of=[key])
    # The map's own hook runs before the stop or is passed over by it; nothing behind it may run.
    assert [path for path in called if path != key] == blocks[:2]
    with calls_of(model, *blocks, head) as called:
        model.values_at(tokens, places, inputs_of=[model.site("ffn", 2).path], outputs_of=[blocks[0]])
    assert called == blocks[:3]
    with calls_of(model, *blocks, head) as called:
        model.values_at(tokens, places, outputs_of=[head])
    assert called == [*blocks, head]


@every_family
def test_values_are_those_of_a_whole_pass(name: str) -> None:
    model = tiny_model(name, "float64")
    key, block = model.site("ffn", 1).path, model.block_path(2)
    ids = ids_of(LONG, LONG + 4)
    values = model.values_at(pad(ids, model), numbers(5, LONG + 3), inputs_of=[key], outputs_of=[block])
    assert not values[key].requires_grad
    for row, place in enumerate((5, LONG + 3)):
        states = model.model(input_ids=torch.tensor([ids[row]]), output_hidden_states=True).hidden_states
        wanted = states[3][0, place]
        assert_agree(values[block][row], wanted, FORWARD, DEPTH)
    assert values[key].shape == (2, model.site("ffn", 1).d_in)


# --- sites -------------------------------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("kind", ["ffn", "attention"])
def test_the_matrix_of_a_site_maps_its_input_to_its_output(name: str, kind: str) -> None:
    model = tiny_model(name, "float64")
    site = model.site(kind, 2)
    tokens, places = pad(ids_of(LONG), model), numbers(9)
    key = model.values_at(tokens, places, inputs_of=[site.path])[site.path][0]
    value = model.values_at(tokens, places, outputs_of=[site.path])[site.path][0]
    bias = site.module.bias if site.module.bias is not None else 0
    assert_agree(site.matrix @ key + bias, value, 128, DEPTH)
    assert site.matrix.shape == (site.d_out, site.d_in) == (32, len(key))
    assert site.matrix.data_ptr() == site.weight.data_ptr()
    assert not site.matrix.requires_grad


def test_orientation_comes_from_the_type_where_the_shape_says_nothing() -> None:
    """GPT-2's attn.c_proj is square, and stored the other way round than an nn.Linear."""
    for name, transposed in (("gpt2", True), ("gptj", False)):
        site = tiny_model(name).site("attention", 1)
        assert site.d_in == site.d_out
        assert site.transposed is transposed
        assert torch.equal(site.matrix, site.weight.T if transposed else site.weight)


@pytest.mark.parametrize("layer", [-1, 4, 99])
def test_a_layer_out_of_range_is_named_with_the_range(layer: int) -> None:
    model = tiny_model("llama")
    for ask in (model.check_layer, lambda number: model.site("ffn", number)):
        with pytest.raises(LayerOutOfRange) as caught:
            ask(layer)
        assert str(caught.value) == (
            f"Setting 'layers' names block {layer}, but tiny-llama has blocks 0 to 3. Choose layers inside that range."
        )


@every_family
def test_what_a_model_says_of_itself(name: str) -> None:
    for dtype in ("float32", "float64", "bfloat16"):
        model = tiny_model(name, dtype)
        assert model.dtype == getattr(torch, dtype)
        assert model.device == torch.device("cpu")
        assert (model.layers, model.max_length) == (LAYERS, 96)
        assert not model.model.training
        assert not any(parameter.requires_grad for parameter in model.model.parameters())
