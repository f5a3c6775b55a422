"""Sums of k k^T against a plain loop over texts, one at a time and without padding, and against recorded arrays."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from errata import errors
from errata.models.loading import load
from errata.models.model import EditableModel, Site
from errata.moments.key_sums import STAGE, Limits, Sums, measure
from families import FAMILIES, tiny_model
from tiny import TEXTS, fresh_model
from tolerances import DEPTH, FORWARD, assert_agree, tolerance

GOLDENS = Path(os.environ.get("ERRATA_GOLDENS", Path(__file__).parents[2].parent / "shared" / "goldens"))
MODELS = ("gpt2", "gpt-j", "gpt-neox", "llama")


def sites_of(model: EditableModel, layers: tuple[int, ...] = (1, 2)) -> list[Site]:
    return [model.site(kind, layer) for kind in ("ffn", "attention") for layer in layers]


def plain(model: EditableModel, site: Site, texts: tuple[str, ...], length: int) -> tuple[Tensor, int]:
    """One text at a time, the whole model, a sum of outer products: obviously right, and slow."""
    total = torch.zeros(site.d_in, site.d_in, dtype=torch.float64)
    tokens = 0

    def add(value: Tensor) -> None:
        nonlocal total, tokens
        for key in value[0].double():
            total = total + torch.outer(key, key)
            tokens += 1

    for text in texts:
        ids = torch.tensor([model.tokenizer(text)["input_ids"][:length]])
        with torch.no_grad(), model.hooked({site.path: add}, "input"):
            model.model(input_ids=ids)
    return total / tokens, tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_a_plain_loop_finds_in_every_family(family: str) -> None:
    model = tiny_model(family, "float64")
    agrees(model, batch_tokens=200, samples=6)


@pytest.mark.parametrize("batch_tokens", [1, 50, 400, 100_000])
def test_padding_and_batches_change_nothing(batch_tokens: int) -> None:
    agrees(fresh_model("float64"), batch_tokens, samples=9)


def agrees(model: EditableModel, batch_tokens: int, samples: int) -> None:
    sums = measure(model, sites_of(model), TEXTS, Limits(samples=samples, batch_tokens=batch_tokens))
    assert sums.texts == samples
    allowed = tolerance(torch.float64, FORWARD * sums.tokens, DEPTH)
    if model.architecture.model_type == "gptj":  # attends in float32 whatever its dtype
        allowed = tolerance(torch.float32, 8)
    for site in sites_of(model):
        expected, tokens = plain(model, site, TEXTS[:samples], 96)
        assert sums.tokens == tokens
        assert sums.totals[site.path].dtype == torch.float64
        worst = (sums.moment(site.path) - expected).abs().max() / expected.abs().max()
        assert float(worst) <= allowed


def test_float32_is_summed_in_float64() -> None:
    model, wide = fresh_model(), fresh_model("float64")
    sums = measure(model, sites_of(model), TEXTS, Limits(samples=100))
    exact = measure(wide, sites_of(wide), TEXTS, Limits(samples=100))
    for path, total in sums.totals.items():
        assert total.dtype == torch.float64
        assert_agree(total, exact.totals[path], FORWARD, DEPTH, dtype=torch.float32)


def test_half_precision_keys_are_multiplied_in_float32() -> None:
    model = fresh_model("bfloat16")
    site = model.site("ffn", 0)
    sums = measure(model, [site], TEXTS, Limits(samples=72, batch_tokens=100_000))
    assert float(sums.moment(site.path).diagonal().min()) > 0
    assert int(torch.linalg.cholesky_ex(sums.moment(site.path)).info) == 0


def test_texts_are_cut_at_the_length_asked_for_and_at_the_context() -> None:
    model = fresh_model(length=32)
    site = model.site("ffn", 1)
    long = "word " * 500
    assert measure(model, [site], [long], Limits(samples=1)).tokens == 32
    assert measure(model, [site], [long, long], Limits(samples=2, max_length=5)).tokens == 10


def test_empty_texts_do_not_count() -> None:
    model = fresh_model()
    site = model.site("ffn", 1)
    sums = measure(model, [site], ["", TEXTS[0], "  \n", TEXTS[1], TEXTS[2]], Limits(samples=2))
    same = measure(model, [site], TEXTS, Limits(samples=2))
    assert sums.texts == 2
    assert torch.equal(sums.totals[site.path], same.totals[site.path])
    assert sums.digest == same.digest


def test_nothing_above_the_last_site_is_run() -> None:
    model = fresh_model()
    reached: list[int] = []

    def note(layer: int) -> None:
        reached.append(layer)

    watched = {model.block_path(layer): lambda value, layer=layer: note(layer) for layer in range(4)}
    with model.hooked(watched, "input"):
        measure(model, sites_of(model, (0, 1)), TEXTS, Limits(samples=3))
    assert set(reached) == {0, 1}


def test_progress_is_told_and_ends_at_the_number_of_texts() -> None:
    model = fresh_model()
    told: list[tuple[str, int, int]] = []
    measure(
        model,
        [model.site("ffn", 0)],
        TEXTS[:20],
        Limits(samples=1000, batch_tokens=60),
        on_progress=lambda stage, done, total: told.append((stage, done, total)),
    )
    assert {stage for stage, _, _ in told} == {STAGE}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[0][2] == 1000
    assert told[-1] == (STAGE, 20, 20)


def test_going_on_gives_the_same_bits() -> None:
    model = fresh_model()
    site = model.site("ffn", 2)
    states: list[Sums] = []

    def keep(sums: Sums) -> None:
        totals = {path: total.clone() for path, total in sums.totals.items()}
        states.append(Sums(totals, sums.tokens, sums.texts, sums.digest))

    whole = measure(model, [site], TEXTS, Limits(samples=24, batch_tokens=40), after_window=keep)
    assert len(states) > 4
    for state in (states[0], states[3], states[-1]):
        resumed = measure(model, [site], TEXTS, Limits(samples=24, batch_tokens=40), start=state)
        assert torch.equal(resumed.totals[site.path], whole.totals[site.path])
        assert (resumed.tokens, resumed.texts, resumed.digest) == (whole.tokens, whole.texts, whole.digest)


def test_other_texts_cannot_be_gone_on_with() -> None:
    model = fresh_model()
    site = model.site("ffn", 0)
    state = measure(model, [site], TEXTS, Limits(samples=5))
    with pytest.raises(errors.CovarianceMismatch, match="first 5 texts differ"):
        measure(model, [site], TEXTS[::-1], Limits(samples=10), start=state)


def test_no_text_is_refused() -> None:
    model = fresh_model()
    with pytest.raises(errors.CovarianceError, match="holds no text"):
        measure(model, [model.site("ffn", 0)], ["", " "], Limits(samples=10))


def test_keys_that_overflow_are_refused_with_advice() -> None:
    model = fresh_model()
    with torch.no_grad():
        model.model.get_submodule("transformer.h.1.mlp.c_fc").bias.fill_(float("inf"))
    with pytest.raises(errors.CovarianceError, match=r"h\.1\.mlp\.c_proj.*not a number.*--dtype bfloat16"):
        measure(model, [model.site("ffn", 1)], TEXTS, Limits(samples=3))


def test_an_edited_model_is_refused() -> None:
    model = fresh_model()
    site = model.site("ffn", 1)
    with model.ledger.entry():
        model.ledger.write(site, 2 * site.weight)
    with pytest.raises(errors.CovarianceError, match=r"edit in its weights.*Revert it first"):
        measure(model, [site], TEXTS, Limits(samples=3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_the_recorded_moments_hold(name: str, dtype: str) -> None:
    """The recorded sums are float64, but of keys that a float32 model gave: their last digits are its rounding."""
    if not (GOLDENS / name).is_dir():
        pytest.skip("the recorded arrays are not here; ERRATA_GOLDENS names their folder")
    model = load(GOLDENS / "models" / name, dtype=dtype)
    sites = sites_of(model, (1, 2, 3))
    sentences = json.loads((GOLDENS / "inputs.json").read_text(encoding="utf-8"))["stat_sentences"]
    sums = measure(model, sites, sentences, Limits(samples=len(sentences)))
    assert sums.tokens == 2999
    with safe_open(GOLDENS / name / "stats.safetensors", framework="pt") as recorded:
        for site in sites:
            expected = recorded.get_tensor(f"{site.path}.f64")
            worst = float((sums.moment(site.path) - expected).abs().max() / expected.abs().max())
            assert worst <= tolerance(torch.float32, FORWARD), site.path
