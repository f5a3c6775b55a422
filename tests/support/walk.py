"""A tiny model of every model type of transformers' causal-LM mapping: the default configuration, made small.

What `errata models` prints is what `tests/models/test_walk.py` finds with these.
"""

from typing import cast

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
WORDS = 400
SMALL: dict[str, object] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 4),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim", "embedding_size"), 32),
    **dict.fromkeys(("input_embedding_size", "output_embedding_size", "embedding_dim"), 32),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "ffn_hidden_size"), 48),
    **dict.fromkeys(("dim_ff", "dff", "shared_intermediate_size", "block_multiple_of"), 48),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_target_positions"), 96
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "num_key_value_heads"), 2),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 24
    ),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "shared_experts_intermediate_size"), 24),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_nope_head_dim", "dim_head", "d_kv", "sliding_window"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), 4),
    **dict.fromkeys(
        ("mamba_d_state", "mamba_d_head", "mamba_n_heads", "mamba_num_heads", "mamba_head_dim"), 8
    ),
    **dict.fromkeys(("ssm_state_size", "mamba_chunk_size", "chunk_size", "state_size"), 8),
    "mamba_d_ssm": 64,
    "qk_rope_head_dim": 4,
    "rotary_dim": 4,
    "encoder_layers": 4,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "vocab_size": WORDS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.15,
}
"""What is put in place of a default, where a configuration has it."""
SMALL_TOWER: dict[str, object] = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "d_model", "ffn_dim", "output_channels"), 32),
    **dict.fromkeys(
        ("num_hidden_layers", "num_layers", "encoder_layers", "num_global_layers", "num_blocks"), 1
    ),
    **dict.fromkeys(("num_attention_heads", "encoder_attention_heads", "attention_heads"), 4),
    **dict.fromkeys(("encoder_ffn_dim", "ext_pw_out_channel", "mlp_dim", "hidden_dim"), 32),
}
"""The same for the towers beside a language model, which plain text never enters."""
FILLED = frozenset({"head_dim", "num_key_value_heads", "pad_token_id", "bos_token_id", "eos_token_id"})
"""Set where the default is None, too."""
NOT_BUILT = {
    **dict.fromkeys(("musicgen", "musicgen_melody"), "It continues codes of sounds, not text."),
    **dict.fromkeys(
        ("gemma4_assistant", "gemma4_unified_assistant"),
        "It drafts tokens for another model, whose keys and values it reads: it is no language model by itself.",
    ),
    "gemma3n": "Not tried: its vision tower needs the package timm. Its language model is gemma3n_text.",
    "dbrx": "Not tried: transformers builds no model from its default configuration; its FFNs are routed experts.",
    "dots3_note": "Not tried: its default configuration could not be made small. Its text model is dots3_note_text.",
}
"""The types of which no model is built, and why."""
SINGLE = ("xglm",)
"""The types whose code does not run in float64."""
FULL_AND_LINEAR = ["linear_attention", "linear_attention", "full_attention", "linear_attention"]
OWN: dict[str, dict[str, object]] = {
    "granite": {"residual_multiplier": 0.22},
    "bailing_hybrid": {"layer_types": FULL_AND_LINEAR, "layer_group_size": 3},
    "kimi_linear": {"layer_types": FULL_AND_LINEAR},
    "bamba": {"attn_layer_indices": [1, 3]},
    "granitemoehybrid": {"layer_types": FULL_AND_LINEAR, "residual_multiplier": 0.22},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
    },
    "zamba": {"num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 1},
    "prophetnet": {
        "num_decoder_layers": 4,
        "num_encoder_layers": 1,
        "num_decoder_attention_heads": 4,
        "num_encoder_attention_heads": 4,
    },
    "xlnet": {"d_inner": 48, "d_head": 8},
    "deepseek_v4": {
        "o_lora_rank": 8,
        "o_groups": 2,
        "index_n_heads": 2,
        "index_head_dim": 8,
        "head_dim": 8,
        "num_key_value_heads": 1,
    },
    "glm4_moe_lite": {"head_dim": None},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "plbart": {"encoder_attention_heads": 4},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "dots3_note_text": {"head_dim": 12, "per_layer_config": {}, "index_n_heads": 2, "index_head_dim": 8},
    "dots3_note": {"head_dim": 12, "per_layer_config": {}, "index_n_heads": 2, "index_head_dim": 8},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "whisper": {"encoder_attention_heads": 4},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "hybrid_layer_ids": [1, 3],
    },
    "zaya": {"num_experts_per_tok": 1},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "qwen4_exp": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "gemma3n_text": {
        "num_hidden_layers": 6,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 400,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0] * 6,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
    },
    "gemma4_text": {
        "vocab_size_per_layer_input": 400,
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 2,
        "num_hidden_layers": 6,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
    },
    "gemma4": {"vocab_size_per_layer_input": 400, "hidden_size_per_layer_input": 8},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 12]},
    "xmod": {"default_language": "en_XX"},
    "roc_bert": {"pronunciation_vocab_size": 20, "shape_vocab_size": 20},
    "xlm": {"emb_dim": 32, "n_layers": 4},
}
"""... and what one type needs besides; None leaves a default as it is."""


def tiny_config(model_type: str) -> PretrainedConfig:
    """The type's default configuration, made small."""
    kind = CONFIG_MAPPING[model_type]
    default = kind()
    text = default.get_text_config(decoder=True)
    inside = next((name for name, value in vars(default).items() if value is text), None)
    known = {**default.to_dict(), **text.to_dict()}
    own = OWN.get(model_type, {})
    values = {
        name: value
        for name, value in SMALL.items()
        if known.get(name) is not None or name in FILLED & known.keys()
    }
    if "qk_rope_head_dim" in known:  # latent attention: every head has keys of its own
        values |= (
            {"head_dim": 4, "num_key_value_heads": 4} if "head_dim" in values else {"num_key_value_heads": 4}
        )
    values = {name: value for name, value in {**values, **own}.items() if value is not None}
    if decoder_is_asked_for(model_type):
        values["is_decoder"] = True
    towers = {
        name: {one: SMALL_TOWER[one] for one in value.to_dict() if one in SMALL_TOWER}
        for name, value in vars(default).items()
        if isinstance(value, PretrainedConfig) and name != inside and value is not default
    }
    return kind(**values, **towers) if inside is None else kind(**{inside: values}, **towers)


def decoder_is_asked_for(model_type: str) -> bool:
    """Whether models of the type see later tokens unless their configuration says `is_decoder`."""
    try:
        return CONFIG_MAPPING[model_type]().to_dict().get("is_decoder") is False
    except ValueError:  # no default configuration
        return False


def tiny_model_of(model_type: str) -> PreTrainedModel:
    """A model with seeded random weights, no norm's weight exactly 1 and no gate exactly 0.

    Raises:
        Exception: whatever transformers raises for a configuration that it cannot build.
    """
    state = torch.get_rng_state()
    torch.manual_seed(3)
    try:
        config = tiny_config(model_type)
        model = AutoModelForCausalLM.from_config(config, experts_implementation="eager")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    finally:
        torch.set_rng_state(state)
    dtype = torch.float32 if model_type in SINGLE else torch.float64
    return cast(PreTrainedModel, cast(nn.Module, model).to(dtype))
