"""A tiny llama with a byte-level tokenizer as a GGUF file, written here with the package gguf."""

import json
from functools import cache
from pathlib import Path

import gguf
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from errata.models.loading import from_parts
from errata.models.model import EditableModel
from families import LLAMA_SHAPE, tiny_tokenizer

BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    **{
        f"model.layers.{layer}.{ours}.weight": f"blk.{layer}.{theirs}.weight"
        for layer in range(4)
        for ours, theirs in BLOCK.items()
    },
}


@cache
def tiny_llama() -> EditableModel:
    """The model that the file holds."""
    tokenizer = tiny_tokenizer("byte_level")
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **ids, **LLAMA_SHAPE)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config)
    return from_parts(model, tokenizer, "tiny-llama")


def write_gguf(file: Path, architecture: str = "llama") -> Path:
    """Write the tiny llama; another architecture is a lie that only the file's header tells."""
    model = tiny_llama()
    config = model.model.config
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, model)
    for name, weight in model.model.state_dict().items():
        writer.add_tensor(NAMES[name], _as_stored(name, weight, model).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: gguf.GGUFWriter, model: EditableModel) -> None:
    saved = json.loads(model.tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model.tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(model.tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in tokens])
    kinds = (gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for _, number in tokens)
    writer.add_token_types(list(kinds))
    writer.add_token_merges([" ".join(merge) for merge in saved["merges"]])
    writer.add_bos_token_id(model.tokenizer.bos_token_id)
    writer.add_eos_token_id(model.tokenizer.eos_token_id)
    writer.add_unk_token_id(model.tokenizer.pad_token_id)


def _as_stored(name: str, weight: Tensor, model: EditableModel) -> Tensor:
    """GGUF keeps the rows of queries and keys in llama's own order: the halves of each head take turns."""
    config = model.model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if part in name:
            halves = weight.reshape(count, 2, weight.shape[0] // count // 2, weight.shape[1])
            return halves.transpose(1, 2).reshape(weight.shape).contiguous()
    return weight
