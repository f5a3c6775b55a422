"""Each row of the table against its family's tiny model: what a row says is measured, not read."""

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from errata.errors import UnknownArchitecture
from errata.models.architectures import ARCHITECTURES, architecture_for
from errata.models.model import Change, EditableModel, Where
from errata.passes.prompts import pad
from families import FAMILIES, tiny_model
from tolerances import DEPTH, FORWARD, assert_agree

every_family = pytest.mark.parametrize("name", FAMILIES)
LAYER = 1
TOKENS = [[5, 9, 30, 31, 200, 8, 77, 120, 4, 66, 91, 250]]


def recorded(
    model: EditableModel, *paths: str, where: Where = "output", changes: dict[str, Tensor] | None = None
) -> list[Tensor]:
    """What modules give (or get) over all tokens, while tensors are added to the outputs of some."""
    seen: dict[str, Tensor] = {}

    def keep(path: str) -> Change:
        return lambda value: seen.update({path: value.detach().clone()})

    def add(change: Tensor) -> Change:
        return lambda value: value + change

    with (
        torch.no_grad(),
        model.hooked({path: add(change) for path, change in (changes or {}).items()}, "output"),
        model.hooked({path: keep(path) for path in paths}, where),
    ):
        model.forward(pad(TOKENS, model))
    return [seen[path] for path in paths]


def a_little(like: Tensor) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype) * 0.1


def close(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).abs().max() <= 1e-12 * two.abs().max())


def test_every_row_has_a_tiny_model_and_every_tiny_model_a_row() -> None:
    assert {family.model_type for family in FAMILIES.values()} == set(ARCHITECTURES)
    assert all(model_type == row.model_type for model_type, row in ARCHITECTURES.items())


@every_family
def test_the_paths_lead_to_what_they_name(name: str) -> None:
    model = tiny_model(name)
    row = model.architecture
    assert row is architecture_for(FAMILIES[name].model_type)
    module = model.model.get_submodule
    assert isinstance(module(row.blocks), nn.ModuleList)
    assert model.layers == 4
    assert module(row.block_path(3)) is module(row.blocks)[3]
    for kind in ("ffn", "attention"):
        for layer in range(4):
            assert isinstance(module(row.site_path(kind, layer)), nn.Linear | Conv1D)
    assert module(row.embeddings) is model.model.get_input_embeddings()
    assert module(row.head) is model.model.get_output_embeddings()


@every_family
def test_the_final_norm_is_what_the_head_reads(name: str) -> None:
    model = tiny_model(name, "float64")
    row = model.architecture
    assert torch.equal(*recorded(model, row.final_norm), *recorded(model, row.head, where="input"))


@every_family
def test_the_output_maps_end_the_attention_and_the_ffn(name: str) -> None:
    model = tiny_model(name, "float64")
    for kind in ("ffn", "attention"):
        path = model.site(kind, LAYER).path
        whole, last = recorded(model, path.rpartition(".")[0], path)
        assert torch.equal(whole, last)


@every_family
def test_the_input_maps_of_the_ffn_read_one_tensor_and_fill_its_hidden_layer(name: str) -> None:
    """All linear maps of the FFN are named: changed one by one, each changes its output, and no other is there."""
    model = tiny_model(name, "float64")
    *inputs, last = model.architecture.ffn_paths(LAYER)
    assert last == model.site("ffn", LAYER).path
    ffn = model.model.get_submodule(last.rpartition(".")[0])
    maps = [part for part in ffn.modules() if isinstance(part, nn.Linear | Conv1D)]
    assert {id(part) for part in maps} == {id(model.model.get_submodule(path)) for path in (*inputs, last)}
    read = recorded(model, *inputs, where="input")
    assert all(torch.equal(one, read[0]) for one in read)
    (key,) = recorded(model, last, where="input")
    for path, output in zip(inputs, recorded(model, *inputs), strict=True):
        assert output.shape == key.shape
        (after,) = recorded(model, last, where="input", changes={path: a_little(output)})
        assert not torch.equal(key, after)
        site = model.site_at(path)
        assert (site.d_in, site.d_out) == (read[0].shape[-1], output.shape[-1])


@every_family
def test_parallel_is_told_as_the_blocks_compute(name: str) -> None:
    """In a parallel block a change of the attention's output does not reach the FFN of the same block."""
    model = tiny_model(name, "float64")
    attention, ffn = model.site("attention", LAYER).path, model.site("ffn", LAYER).path
    (output,) = recorded(model, attention)
    (before,) = recorded(model, ffn, where="input")
    (after,) = recorded(model, ffn, where="input", changes={attention: a_little(output)})
    assert torch.equal(before, after) == model.parallel


def test_gptj_is_parallel_and_gpt2_is_not() -> None:
    assert tiny_model("gptj").parallel
    assert not tiny_model("gpt2").parallel


def test_the_configuration_decides_where_the_family_does_not() -> None:
    row = ARCHITECTURES["gpt_neox"]
    for side_by_side in (True, False):
        name = "gpt_neox" if side_by_side else "gpt_neox sequential"
        assert tiny_model(name).model.config.use_parallel_residual is side_by_side
        assert row.runs_in_parallel(tiny_model(name).model.config) is side_by_side


@every_family
def test_post_norm_is_told_as_the_blocks_compute(name: str) -> None:
    """Without a norm behind the FFN, a change D of the down projection adds D k to the block's output, exactly."""
    model = tiny_model(name, "float64")
    site, block = model.site("ffn", LAYER), model.block_path(LAYER)
    (key,) = recorded(model, site.path, where="input")
    (before,) = recorded(model, block)
    change = a_little(site.matrix) * site.matrix.abs().mean()
    kept = site.weight.detach().clone()
    try:
        site.matrix.add_(change)
        (after,) = recorded(model, block)
    finally:
        site.weight.copy_(kept)
    linear = key @ change.T
    if model.architecture.post_norm:
        assert (after - before - linear).abs().max() > 1e-3 * linear.abs().max()
    else:
        assert_agree(after - before, linear, FORWARD, DEPTH, scale=float(before.abs().max()))


@every_family
def test_the_attention_adds_linearly_too_where_the_block_is_parallel(name: str) -> None:
    model = tiny_model(name, "float64")
    path, block = model.site("attention", LAYER).path, model.block_path(LAYER)
    before, output = recorded(model, block, path)
    change = a_little(output)
    (after,) = recorded(model, block, changes={path: change})
    assert close(after, before + change) == model.parallel


def test_an_unknown_family_is_told_how_to_become_known() -> None:
    with pytest.raises(UnknownArchitecture) as caught:
        architecture_for("gpt-j")
    message = str(caught.value)
    for part in (
        "'gpt-j' is not known",
        "Did you mean 'gptj'?",
        "errata/architectures.py",
        "docs/add-a-model.md",
    ):
        assert part in message
    assert all(model_type in message for model_type in ARCHITECTURES)
    with pytest.raises(UnknownArchitecture) as caught:
        architecture_for("zzz")
    assert "Did you mean" not in str(caught.value)


def test_a_row_does_not_change() -> None:
    with pytest.raises(AttributeError):
        ARCHITECTURES["gpt2"].blocks = "elsewhere"
