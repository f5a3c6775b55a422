"""Memory that is computed from shapes: it counts what there is, and grows with what makes it grow."""

import pytest
import torch
from transformers import AutoConfig

from cli_world import answer, run, the_world
from errata.planning.sizes import known_shapes, needs_of, shape_of
from families import FAMILIES, tiny_model

GPT_J, NEOX, LLAMA, LARGE = range(4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shape_counts_what_the_model_has(family: str) -> None:
    model = tiny_model(family)
    shape = shape_of("tiny", AutoConfig.for_model(**model.model.config.to_dict()))
    assert shape.parameters == sum(parameter.numel() for parameter in model.model.parameters())
    assert (shape.blocks, shape.d_in) == (model.layers, model.site("ffn", 0).d_in)
    assert needs_of(shape, torch.bfloat16, 4).weights == 2 * shape.parameters


def test_published_sizes() -> None:
    shapes = known_shapes()
    assert [round(shape.parameters / 1e9, 2) for shape in shapes] == [6.05, 20.55, 8.03, 70.55]
    assert [shape.d_in for shape in shapes] == [16384, 24576, 14336, 28672]
    assert shapes[GPT_J].layers == (3, 4, 5, 6, 7, 8)
    needs = needs_of(shapes[GPT_J], torch.float32, 100)
    assert needs.moments_file == 6 * 16384**2 * 4
    assert needs.whole > needs.weights + needs.collecting
    assert (
        needs_of(shapes[LLAMA], torch.float32, 10_000).spreading
        > needs_of(shapes[LLAMA], torch.float32, 100).spreading
    )
    assert (
        needs_of(shapes[LARGE], torch.bfloat16, 1, "cuda").collecting
        < needs_of(shapes[LARGE], torch.bfloat16, 1).collecting
    )


def test_the_command_tells_them() -> None:
    told = run("models", "--memory", "--dtype", "bfloat16", "--count", "1000").stdout
    assert "gpt-j-6b" in told
    assert "computed" in told
    only = answer("models", "--config", the_world().model)
    (row,) = only["models"]  # type: ignore[misc]
    assert row["bytes"]["weights"] == 4 * row["parameters"]
