"""What is measured of a model when it is loaded: a wrong record is refused, a right one filled in."""

from dataclasses import replace

import pytest
import torch

from errata.errors import UnsupportedArchitecture
from errata.models import ARCHITECTURES, Architecture, EditableModel, Passes, from_parts, loading
from errata.settings import load_presets
from families import FAMILIES, tiny_model, tiny_tokenizer
from walk import tiny_model_of

LLAMA = ARCHITECTURES["llama"]
WRONG = {
    "post-norm": replace(LLAMA, post_norm=True),
    "parallel": replace(LLAMA, parallel=True),
    "kinds mixed up": replace(
        LLAMA,
        attention_output="mlp.down_proj",
        ffn_output="self_attn.o_proj",
        ffn_inputs=("self_attn.q_proj",),
    ),
    "not the last map": replace(LLAMA, ffn_output="mlp.up_proj", ffn_inputs=("mlp.gate_proj",)),
    "not the last map of the attention": replace(LLAMA, attention_output="self_attn.q_proj"),
}


def loaded(model_type: str) -> EditableModel:
    return from_parts(tiny_model_of(model_type), tiny_tokenizer("byte_level"), "tiny")


@pytest.mark.parametrize("record", WRONG.values(), ids=WRONG)
def test_a_row_that_does_not_hold_is_refused(record: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    known = tiny_model("llama")
    monkeypatch.setattr(loading, "row_of", lambda model_type: record)
    with pytest.raises(UnsupportedArchitecture):
        from_parts(known.model, known.tokenizer, "tiny")


def test_code_that_scales_what_a_row_says_is_added_is_refused() -> None:
    model = tiny_model_of("granite")
    model.config.model_type = "llama"
    with pytest.raises(
        UnsupportedArchitecture, match=r"block 0 the down projection's output joins .* times 0.22"
    ):
        from_parts(model, tiny_tokenizer("byte_level"), "tiny")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_short_cut_holds_for_a_family_with_a_row(family: str) -> None:
    model = tiny_model(family)
    assert model.measured is not None
    assert model.passes == Passes()
    assert set(model.measured.factors) == {None if model.architecture.post_norm else 1.0}
    assert model.editable_layers == (0, 1, 2, 3)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_measures_the_same(family: str, dtype: str) -> None:
    known = tiny_model(family)
    assert tiny_model(family, dtype).measured == known.measured


def test_a_residual_multiplier_is_measured() -> None:
    model = loaded("granite")
    assert [model.ffn_factor(layer) for layer in model.editable_layers] == [0.22] * 4


def test_a_block_without_a_dense_ffn_refuses_by_its_number_and_the_rule_leaves_it_out() -> None:
    model = loaded("mimo_v2_flash")
    assert model.editable_layers == (0,)
    assert model.site("ffn", 0).d_out == 32
    with pytest.raises(UnsupportedArchitecture, match=r"Block 2 of .* routes each token"):
        model.site("ffn", 2)
    assert model.dtype == torch.float64


def test_a_rule_chooses_among_the_blocks_that_can_be_edited() -> None:
    found = load_presets("pmet").among((0, 3, 6, 9)).for_model("nobody/knows", 12)
    assert found.values["layers"] == (3, 6)
    assert load_presets("pmet").for_model("nobody/knows", 12).values["layers"] == (2, 3, 4, 5, 6)


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    model = tiny_model_of("bert")
    model.config.is_decoder = False
    for layer in model.bert.encoder.layer:
        layer.attention.self.is_causal = False
        layer.attention.self.is_decoder = False
    with pytest.raises(UnsupportedArchitecture, match="lets a token see later ones"):
        from_parts(model, tiny_tokenizer("byte_level"), "tiny")


def test_the_vocabulary_is_the_heads() -> None:
    model = loaded("llama")
    assert model.vocabulary == 400
    assert len(model.tokenizer) < 400
