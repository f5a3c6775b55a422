"""Where each model family keeps its parts: the only file that names families.

A family without a row in `ARCHITECTURES` gets a record derived from its modules (`deriving.py`); either is checked by
measurement when a model is loaded (`measuring.py`). Everything else in Errata asks the record.
"""

import difflib
from dataclasses import dataclass
from typing import Protocol

from errata.errors import UnknownArchitecture, UnsupportedArchitecture


class ModelConfig(Protocol):
    """What Errata reads of a Hugging Face configuration besides `parallel_flag`."""

    model_type: str


@dataclass(frozen=True)
class BlockParts:
    """The module paths of one block, relative to it; None where it has no such map."""

    attention_output: str | None
    ffn_output: str | None
    ffn_inputs: tuple[str, ...] = ()
    reason: str = ""
    """Why a map is missing."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The module paths of one family, and what an editor must know about its blocks.

    Paths of `attention_output`, `ffn_output` and `ffn_inputs` are relative to a block; the others to the whole model.
    """

    model_type: str
    blocks: str
    attention_output: str
    """The linear map that ends the attention; its output is `a^l`."""
    ffn_output: str
    """The down projection that ends the FFN; its input is the key `k^l`, its output `m^l`."""
    ffn_inputs: tuple[str, ...]
    """The maps that lead into the FFN's hidden layer: the up projection, and before it the gate where there is one."""
    final_norm: str
    embeddings: str
    head: str = "lm_head"
    parallel: bool = False
    """Attention and FFN both read the block's input, so a change of `a^l` does not reach the FFN of the same block."""
    parallel_flag: str | None = None
    """The configuration's attribute that decides `parallel`, where it differs between models of the family."""
    post_norm: bool = False
    """The FFN's output is normalised before it joins the residual stream: `h^l` is not linear in the projection."""
    others: tuple[tuple[int, BlockParts], ...] = ()
    """The blocks whose maps are not those above, in models with blocks of several kinds."""
    derived: bool = False
    """Whether the record was derived from the model's modules: then `parallel` and `post_norm` are measured."""

    def block_path(self, layer: int) -> str:
        """The path of block `layer`, for example `transformer.h.3`."""
        return f"{self.blocks}.{layer}"

    def site_path(self, kind: str, layer: int) -> str:
        """The path of the output map of `kind` ("ffn" or "attention") in block `layer`.

        Raises:
            UnsupportedArchitecture: the block has no such map.
        """
        path = self.path_if_any(kind, layer)
        if path is None:
            what = {"ffn": "FFN down projection", "attention": "attention output map"}[kind]
            raise UnsupportedArchitecture(
                f"Block {layer} of this model of family {self.model_type} has no {what} to edit: "
                f"{self.parts(layer).reason}. Choose other layers (`errata models` explains which families have which)."
            )
        return path

    def path_if_any(self, kind: str, layer: int) -> str | None:
        """The same, or None where the block has no such map."""
        parts = self.parts(layer)
        within = {"ffn": parts.ffn_output, "attention": parts.attention_output}[kind]
        return None if within is None else f"{self.block_path(layer)}.{within}"

    def parts(self, layer: int) -> BlockParts:
        """The paths within block `layer`."""
        usual = BlockParts(self.attention_output, self.ffn_output, self.ffn_inputs)
        return dict(self.others).get(layer, usual)

    def ffn_paths(self, layer: int) -> tuple[str, ...]:
        """The paths of every linear map of the FFN of block `layer`, in the order in which they are applied."""
        output, inputs = self.site_path("ffn", layer), self.parts(layer).ffn_inputs
        return (*(f"{self.block_path(layer)}.{within}" for within in inputs), output)

    def ffn_prefixes(self, layer: int) -> tuple[str, ...]:
        """What the paths of all parameters of the FFN of block `layer` begin with."""
        paths = self.ffn_paths(layer)
        folders = {path.rpartition(".")[0] for path in paths}
        if len(folders) == 1 and folders != {self.block_path(layer)}:
            return (f"{folders.pop()}.",)
        return paths

    def runs_in_parallel(self, config: object) -> bool:
        """Whether this very model runs attention and FFN side by side."""
        return self.parallel if self.parallel_flag is None else bool(getattr(config, self.parallel_flag))


def _llama_like(model_type: str, post_norm: bool = False) -> Architecture:
    """The layout that Llama started and most families since have kept."""
    return Architecture(
        model_type=model_type,
        blocks="model.layers",
        attention_output="self_attn.o_proj",
        ffn_output="mlp.down_proj",
        ffn_inputs=("mlp.gate_proj", "mlp.up_proj"),
        final_norm="model.norm",
        embeddings="model.embed_tokens",
        post_norm=post_norm,
    )


ARCHITECTURES: dict[str, Architecture] = {
    row.model_type: row
    for row in (
        Architecture(
            model_type="gpt2",
            blocks="transformer.h",
            attention_output="attn.c_proj",
            ffn_output="mlp.c_proj",
            ffn_inputs=("mlp.c_fc",),
            final_norm="transformer.ln_f",
            embeddings="transformer.wte",
        ),
        Architecture(
            model_type="gptj",
            blocks="transformer.h",
            attention_output="attn.out_proj",
            ffn_output="mlp.fc_out",
            ffn_inputs=("mlp.fc_in",),
            final_norm="transformer.ln_f",
            embeddings="transformer.wte",
            parallel=True,
        ),
        Architecture(
            model_type="gpt_neox",
            blocks="gpt_neox.layers",
            attention_output="attention.dense",
            ffn_output="mlp.dense_4h_to_h",
            ffn_inputs=("mlp.dense_h_to_4h",),
            final_norm="gpt_neox.final_layer_norm",
            embeddings="gpt_neox.embed_in",
            parallel_flag="use_parallel_residual",
        ),
        _llama_like("llama"),
        _llama_like("mistral"),
        _llama_like("qwen2"),
        _llama_like("qwen3"),
        _llama_like("gemma"),
        _llama_like("gemma2", post_norm=True),
        _llama_like("gemma3_text", post_norm=True),
        _llama_like("olmo2", post_norm=True),
    )
}


def row_of(model_type: str) -> Architecture | None:
    """The row of a family, if it has one."""
    return ARCHITECTURES.get(model_type)


def architecture_for(model_type: str) -> Architecture:
    """The row of a family.

    Raises:
        UnknownArchitecture: there is none; the message says how to add one.
    """
    if model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    close = difflib.get_close_matches(model_type, ARCHITECTURES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownArchitecture(
        f"Model family {model_type!r} is not known to Errata.{hint} Known families: {', '.join(ARCHITECTURES)}. "
        "To add one, write its row in errata/architectures.py (the paths of its blocks, of the attention's and the "
        "FFN's output maps, of its final norm and embeddings) and a tiny config in tests/support/families.py: "
        "docs/add-a-model.md shows how, and the tests then cover it."
    )
