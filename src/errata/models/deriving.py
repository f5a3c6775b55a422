"""A record of a family that has no row: derived from the model's modules, by their types, shapes and usual names.

Only the structure is read, so that it works without weights as well. What it guesses is measured afterwards, in every
block (`measuring.py`): a wrong guess is refused there, never used.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import cast

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from errata.errors import UnknownArchitecture, UnsupportedArchitecture
from errata.models.architectures import Architecture, BlockParts

ATTENTION = re.compile(r"att|mixer|temporal|mamba|ssm|conv|recurrent|rnn", re.IGNORECASE)
"""What a path within a block says where it belongs to what mixes tokens."""
FFN = re.compile(r"expert|mlp|ffn|feed_forward|moe|(^|\.)fc|(^|\.)(intermediate|output)\.", re.IGNORECASE)
"""... and to the FFN, where nothing says the other."""
LEFT_OUT = re.compile(
    r"cross|encoder_att|(^|\.)experts\.|router|indexer|compressor|altup|laurel|adapter|lora|per_layer|norm"
)
"""Maps inside these end neither: attention to other texts, routed experts, and what chooses among them."""
FFN_ENDS = ("down_proj", "fc2", "c_proj", "w2", "w_out", "output_linear", "dense_4h_to_h", "fc_out", "Wo")
ATTENTION_ENDS = (
    "o_proj",
    "out_proj",
    "dense",
    "c_proj",
    "Wo",
    "o_b_proj",
    "attention_out",
    "out_lin",
    "linear_out",
)
"""Usual names of the last map, for the blocks in which its shape and place do not tell."""
FINAL_NORM = re.compile(r"(final_?)?(layer_?)?norm(_f)?|ln_f|ln_out|embedding_norm")
ROUTED = "it routes each token to some of its experts, and has no dense or shared path besides"
NO_FFN = "it has no FFN that ends in one plain linear map"
NO_ATTENTION = "nothing in it that mixes tokens ends in one plain linear map"


def derive(model: PreTrainedModel, name: str) -> Architecture:
    """The record of a model from its modules.

    Raises:
        UnknownArchitecture: it has no list of blocks, or no embeddings or head.
        UnsupportedArchitecture: no block has an FFN that ends in one plain linear map.
    """
    model_type = model.config.model_type
    paths = {id(module): path for path, module in named_modules(model)}
    embeddings = paths.get(id(model.get_input_embeddings()))
    head = paths.get(id(cast("nn.Module | None", model.get_output_embeddings())))
    if embeddings is None or head is None:
        what = "token embeddings" if embeddings is None else "a language model's head"
        raise _unknown(model, name, f"it names no {what}")
    blocks = _blocks(model, embeddings, name)
    width = _width(model)
    parts = [parts_of(block, width) for block in cast(nn.ModuleList, model.get_submodule(blocks))]
    editable = [one for one in parts if one.ffn_output is not None]
    if not editable:
        raise UnsupportedArchitecture(
            f"{name} is of family {model_type}, in which no block can be edited. Of block 0: {parts[0].reason}. "
            "docs/families.md lists what can be."
        )
    usual = Counter(editable).most_common(1)[0][0]
    return Architecture(
        model_type=model_type,
        blocks=blocks,
        attention_output=usual.attention_output or "",
        ffn_output=usual.ffn_output or "",
        ffn_inputs=usual.ffn_inputs,
        final_norm=_final_norm(model, blocks),
        embeddings=embeddings,
        head=head,
        others=tuple(
            (layer, one) for layer, one in enumerate(parts) if one != usual or usual.attention_output is None
        ),
        derived=True,
    )


def parts_of(block: nn.Module, width: int) -> BlockParts:
    """The maps of a block of a model whose residual stream is `width` wide."""
    maps = [(path, shape) for path, shape in _maps(block) if not LEFT_OUT.search(path)]
    ffn = [(path, shape) for path, shape in maps if _is_ffn(path)]
    mixing = [
        path for path, shape in maps if not _is_ffn(path) and ATTENTION.search(path) and shape[0] == width
    ]
    output = _last([path for path, shape in ffn if shape[0] == width], FFN_ENDS)
    attention = _last([path for path in mixing if "att" in path] or mixing, ATTENTION_ENDS)
    routed = any("expert" in path or "router" in path for path, _ in named_modules(block))
    missing = [(output, ROUTED if routed else NO_FFN), (attention, NO_ATTENTION)]
    reason = next((reason for found, reason in missing if found is None), "")
    return BlockParts(attention, output, _inputs(ffn, output, width), reason)


def _inputs(ffn: list[tuple[str, tuple[int, int]]], output: str | None, width: int) -> tuple[str, ...]:
    """The maps of the FFN that read the residual stream and fill the hidden layer, fused ones too."""
    if output is None:
        return ()
    hidden = next(shape[1] for path, shape in ffn if path == output)
    folder = output.rpartition(".")[0]
    outer = folder.rpartition(".")[0] if folder.endswith(("output", "ffn")) else folder
    return tuple(
        path
        for path, shape in ffn
        if path != output
        and shape[1] == width
        and shape[0] in (hidden, 2 * hidden)
        and (path.startswith(f"{folder}.") or path.rpartition(".")[0] in (folder, outer) or not outer)
    )


def named_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module inside, and the module itself, by path."""
    return cast("Iterator[tuple[str, nn.Module]]", module.named_modules())


def _maps(block: nn.Module) -> Iterator[tuple[str, tuple[int, int]]]:
    """The path and shape [d_out, d_in] of each linear map within a block."""
    for path, module in named_modules(block):
        if isinstance(module, nn.Linear | Conv1D) and module.weight.ndim == 2:
            rows, columns = int(module.weight.shape[0]), int(module.weight.shape[1])
            yield path, (columns, rows) if isinstance(module, Conv1D) else (rows, columns)


def _is_ffn(path: str) -> bool:
    return bool(FFN.search(path) and not re.search("att", path)) or path.endswith("mixer.down_proj")


def _last(paths: list[str], names: tuple[str, ...]) -> str | None:
    """The last map of a part: by its name, where it has a usual one, else the one registered last."""
    named = [path for path in paths if any(one in names for one in path.split(".")[-2:])]
    return (named or paths or [None])[-1]


def _blocks(model: PreTrainedModel, embeddings: str, name: str) -> str:
    """The path of the list of blocks: the one nearest to the embeddings, with the most linear maps in it."""
    lists: list[tuple[str, nn.ModuleList]] = [
        (path, module)
        for path, module in named_modules(model)
        if isinstance(module, nn.ModuleList)
        and len(module)
        and all(len(list(_maps(one))) > 1 for one in cast("Iterable[nn.Module]", module))
    ]
    outer = [one for one in lists if not any(one[0].startswith(f"{path}.") for path, _ in lists)]
    if not outer:
        raise _unknown(model, name, "it has no list of blocks")

    def near(one: tuple[str, nn.ModuleList]) -> tuple[int, int]:
        return _shared(one[0], embeddings), len(list(named_modules(one[1])))

    return max(outer, key=near)[0]


def _unknown(model: PreTrainedModel, name: str, why: str) -> UnknownArchitecture:
    return UnknownArchitecture(
        f"{name} is of family {model.config.model_type}, which has no row, and none can be derived: {why}. "
        "docs/add-a-model.md shows how to add a row."
    )


def _shared(path: str, other: str) -> int:
    """How many first names two paths share."""
    count = 0
    for one, two in zip(path.split("."), other.split("."), strict=False):
        if one != two:
            break
        count += 1
    return count


def _width(model: PreTrainedModel) -> int:
    """How wide the residual stream is."""
    text = model.config.get_text_config(decoder=True)
    width = cast("int | None", getattr(text, "hidden_size", None) or getattr(text, "d_model", None))
    return width or int(cast(nn.Embedding, model.get_input_embeddings()).weight.shape[1])


def _final_norm(model: PreTrainedModel, blocks: str) -> str:
    """The last norm beside the blocks, or their list's owner, that has a usual name; "" where there is none."""
    owner = blocks.rpartition(".")[0]
    for folder in (owner, owner.rpartition(".")[0]):
        names = [
            name for name, _ in model.get_submodule(folder).named_children() if FINAL_NORM.fullmatch(name)
        ]
        if names:
            return f"{folder}.{names[-1]}" if folder else names[-1]
    return ""
