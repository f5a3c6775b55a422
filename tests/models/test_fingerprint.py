"""Fingerprints: one for each checkpoint in every precision, another for every change."""

import pytest
import torch

from errata.models.fingerprint import SAMPLES, fingerprint_of
from errata.models.loading import from_parts
from errata.models.model import EditableModel
from families import tiny_model
from model_cases import every_family


def fresh(name: str) -> EditableModel:
    """A model of the family with other weights, that may be changed."""
    shared = tiny_model(name)
    return from_parts(type(shared.model)(shared.model.config), shared.tokenizer, f"fresh-{name}")


@every_family
def test_one_checkpoint_has_one_fingerprint_in_every_precision(name: str) -> None:
    found = {tiny_model(name, dtype).measure_fingerprint() for dtype in ("float32", "float64", "bfloat16")}
    assert len(found) == 1
    half = tiny_model(name, "float16").model
    assert fingerprint_of(half.named_parameters()) == fingerprint_of(
        (path, parameter.float()) for path, parameter in half.named_parameters()
    )


def test_families_and_seeds_have_different_fingerprints() -> None:
    models = [tiny_model(name) for name in ("gpt2", "gptj", "llama", "gemma", "olmo2")]
    found = [model.measure_fingerprint() for model in (*models, fresh("llama"), fresh("gpt2"))]
    assert len(set(found)) == len(found)
    assert all(len(one) == 32 for one in found)


@every_family
@pytest.mark.parametrize("kind", ["ffn", "attention"])
def test_an_edit_of_one_matrix_shows_and_taking_it_back_does_too(name: str, kind: str) -> None:
    model = fresh(name)
    before = model.fingerprint
    site = model.site(kind, 2)
    kept = site.weight.detach().clone()
    change = torch.outer(torch.randn(site.d_out), torch.randn(site.d_in))
    change *= 2e-3 * torch.linalg.matrix_norm(site.matrix) / torch.linalg.matrix_norm(change)
    with model.ledger.temporary():
        model.ledger.write(site, site.as_stored(site.matrix + change))
        assert model.measure_fingerprint() != before
        assert model.fingerprint == before  # that of the unedited model
    assert torch.equal(site.weight, kept)
    assert model.fingerprint == model.measure_fingerprint() == before


def test_the_samples_of_a_large_matrix_lie_in_every_column() -> None:
    """Were they a whole number of rows apart, they would all lie in one."""
    matrix = torch.zeros(256, 2 * SAMPLES)
    before = fingerprint_of([("weight", matrix)])
    for columns in (slice(1, None), slice(0, None, 64), slice(SAMPLES, SAMPLES + 8)):
        changed = matrix.clone()
        changed[:, columns] = 1
        assert fingerprint_of([("weight", changed)]) != before


def test_names_and_shapes_are_part_of_the_fingerprint() -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    found = [[("a", matrix)], [("b", matrix)], [("a", matrix.reshape(4, 3))], [("a", matrix), ("b", matrix)]]
    assert len({fingerprint_of(parameters) for parameters in found}) == 4
    assert fingerprint_of([("b", matrix), ("a", matrix)]) == fingerprint_of([("a", matrix), ("b", matrix)])
