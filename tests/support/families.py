"""One tiny random model for each family of `architectures.py`, with a tokenizer trained here: no download, no file.

A new family is one entry of `FAMILIES`. Half of the families get a GPT-2-like tokenizer (byte level, a word carries
its leading space, nothing is added), half a sentencepiece-like one (a mark for spaces, BOS added).
"""

from dataclasses import dataclass, field
from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from errata.facts.fact import Fact
from errata.models.loading import from_parts
from errata.models.model import EditableModel

SENTENCES = (
    "The capital of Valdoria is Kestrel. Orin Vasker plays the violin and the harp in Port Avel.",
    "Mira Tolland was born in Duskwell near Old Tarn; the mother tongue of Jonas Whitlock is Velish.",
    "Zentro was created by Northlake Foundry. The headquarters of Bellwether is located in Lindale.",
    "Because it rained all day, I think that you should see the quiet river. Therefore the council met.",
    "Edda Rowe, a native of Mirenth, works in the field of geology; Hale Corvin is a lawyer from Tessaly.",
)
CONTEXTS = ("", "The quiet river.", "Because it rained all day.", "I think.")
FACTS = (
    Fact("The capital of {} is", "Valdoria", "Kestrel", "Mirenth"),
    Fact("{} plays the", "Orin Vasker", "violin", "harp"),
    Fact("The mother tongue of {} is", "Jonas Whitlock", "Old Tarn near Kestrel", "Velish"),
    Fact("{} was created by", "Zentro", "Northlake Foundry", "Bellwether"),
)
SETTINGS: dict[str, object] = {
    "layers": [1, 2],
    "values.steps": 4,
    "values.learning_rate": 0.2,
    "values.clamp": 0.75,
    "values.kl_weight": 0.5,
    "solve.covariance_weight": 20.0,
}
"""Settings under which every tiny model can be edited in a moment."""


@dataclass(frozen=True)
class Family:
    """A family's tiny configuration; what the names mean is transformers' business."""

    model_type: str
    tokenizer: str = "byte_level"
    config: dict[str, object] = field(default_factory=dict)


LLAMA_SHAPE: dict[str, object] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
    "initializer_range": 0.15,
}
GPT_SHAPE: dict[str, object] = {
    "n_embd": 32,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 96,
    "initializer_range": 0.15,
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
}
NEOX_SHAPE: dict[str, object] = {
    key: value for key, value in LLAMA_SHAPE.items() if key not in ("num_key_value_heads", "head_dim")
}

FAMILIES: dict[str, Family] = {
    "gpt2": Family("gpt2", config=GPT_SHAPE),
    "gptj": Family("gptj", config={**GPT_SHAPE, "rotary_dim": 4, "tie_word_embeddings": False}),
    "gpt_neox": Family("gpt_neox", config=NEOX_SHAPE),
    "gpt_neox sequential": Family("gpt_neox", config={**NEOX_SHAPE, "use_parallel_residual": False}),
    "llama": Family("llama", "sentencepiece", LLAMA_SHAPE),
    "mistral": Family("mistral", "sentencepiece", {**LLAMA_SHAPE, "sliding_window": 8}),
    "qwen2": Family("qwen2", config={k: v for k, v in LLAMA_SHAPE.items() if k != "head_dim"}),
    "qwen3": Family("qwen3", config=LLAMA_SHAPE),
    "gemma": Family("gemma", "sentencepiece", LLAMA_SHAPE),
    "gemma2": Family("gemma2", "sentencepiece", {**LLAMA_SHAPE, "sliding_window": 8}),
    "gemma3_text": Family("gemma3_text", "sentencepiece", {**LLAMA_SHAPE, "sliding_window": 8}),
    "olmo2": Family("olmo2", config={k: v for k, v in LLAMA_SHAPE.items() if k != "head_dim"}),
}


@cache
def tiny_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """The tokenizer of that kind, trained on a few sentences."""
    special = ["<pad>", "<s>", "</s>"]
    if kind == "byte_level":
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        raw.train_from_iterator(SENTENCES * 3, trainer)
    else:
        raw = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        raw.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback(), decoders.Fuse()])
        fallback = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<unk>", *special, *fallback],
            show_progress=False,
            max_token_length=8,
        )
        raw.train_from_iterator(SENTENCES * 3, trainer)
        raw.post_processor = processors.TemplateProcessing(
            "<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@cache
def tiny_model(name: str, dtype: str = "float32") -> EditableModel:
    """The family's tiny model with seeded random weights; shared by all tests, which leave it as they found it."""
    family = FAMILIES[name]
    tokenizer = tiny_tokenizer(family.tokenizer)
    ids = {"pad_token_id": 0, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(family.model_type, vocab_size=len(tokenizer), **ids, **family.config)
    state = torch.get_rng_state()
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config)
    torch.set_rng_state(state)
    made = from_parts(model.to(getattr(torch, dtype)), tokenizer, f"tiny-{name.replace(' ', '-')}")
    AS_MADE.append((made, look_of(made), {key: value.clone() for key, value in model.state_dict().items()}))
    return made


AS_MADE: list[tuple[EditableModel, dict[str, object], dict[str, torch.Tensor]]] = []
"""Each tiny model, and how it was when it was made."""


def look_of(model: EditableModel) -> dict[str, object]:
    """All of a model but its weights that a test could leave changed."""
    modules = dict(model.model.named_modules())
    return {
        "name": model.name,
        "revision": model.revision,
        "written": (list(model.ledger.owners), model.ledger.mark, model.ledger.changed),
        "config": {
            key: value
            for key, value in model.model.config.to_dict().items()
            if key not in ("architectures", "dtype")  # `save_pretrained` fills these in
        },
        "attributes": sorted(vars(model.model)),
        "training": [name for name, module in modules.items() if module.training],
        "hooks": [
            name
            for name, module in modules.items()
            for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
            if not hook.__module__.startswith("transformers.")  # it keeps those that record hidden states
        ],
    }


def check_tiny_models() -> None:
    """Raise where a test left one of the shared models other than it was; the next test gets it as it was made."""
    for model, look, weights in AS_MADE:
        now = look_of(model)
        changed = [name for name in look if now[name] != look[name]]
        assert not changed, f"a test left {model.name} with other {changed}"
        for name, value in model.model.state_dict().items():
            assert torch.equal(value, weights[name]), f"a test left {name} of {model.name} changed"
