"""A causal language model that can be looked into and written to: `EditableModel` and its `Site`s.

The hooks here are the only ones in Errata. They know the known traps: a block's output is a tensor in most
families and a tuple in some, and inputs may arrive as keyword arguments.
"""

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from errata.errors import LayerOutOfRange
from errata.models.architectures import Architecture
from errata.models.fingerprint import fingerprint_of
from errata.models.ledger import Ledger
from errata.models.offload import device_of, stored
from errata.models.sites import Site

LENGTHS = ("max_position_embeddings", "max_seq_len", "max_target_positions")
Where = Literal["input", "output"]
Change = Callable[[Tensor], Tensor | None]
"""Sees a module's input or output [row, seq, d]; what it returns replaces it, None leaves it."""
SHORTEST = 16
"""In float64, no batch is padded to fewer tokens. Matrix products of fewer than 12 rows take other kernels: the last
bits of a row would depend on its neighbors' lengths, and where a family computes attention in float32, visibly so."""


class StopForward(Exception):
    """Raised inside a hook when nothing further of the forward pass is needed."""


@dataclass(frozen=True)
class Tokens:
    """A right-padded batch of token ids."""

    ids: Int[Tensor, "row seq"]
    mask: Bool[Tensor, "row seq"]
    earlier: Int[Tensor, " row"] | None = None
    """Tokens of each row that come before, at the right end of the cache; None where that is all of the cache."""

    def rows(self, index: Int[Tensor, " chosen"]) -> "Tokens":
        """The chosen rows, cut to the longest of them."""
        mask = self.mask[index]
        longest = max(SHORTEST, int(mask.sum(dim=1).max())) if len(index) else 0
        return Tokens(self.ids[index, :longest], mask[:, :longest])


@dataclass(frozen=True)
class Passes:
    """Which short cuts give what a pass over the whole model gives."""

    enters_blocks: bool = True
    """The lower blocks can be left out where the stream that enters a block is known."""
    keeps_tokens: bool = True
    """Earlier tokens can be left out where their keys and values are known."""
    ffn_alone: bool = True
    """The FFN can be run at some tokens alone."""
    aligns: bool = True
    """Rows with different numbers of earlier tokens can run together, each told its positions."""


@dataclass(frozen=True)
class Measured:
    """What was measured of a model when it was loaded (`measuring.py`)."""

    factors: tuple[float | None, ...]
    """By block: c, where a change d of the down projection's output changes the block's output by c d."""
    parallel: bool
    passes: Passes


@dataclass(eq=False)
class EditableModel:
    """A Hugging Face causal LM with its tokenizer, its architecture record, and the ledger of its weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    name: str
    revision: str | None = None
    ledger: Ledger = field(default_factory=Ledger)
    """What has been written into the weights; a copy of this object that shares the weights shares it."""
    measured: Measured | None = None
    """None for a model without weights, or with parts of it offloaded: then the architecture's row is believed."""
    _running: tuple[int, int] = field(default=(0, 0), repr=False)
    """Rows and tokens of the pass that runs, or ran last."""

    @property
    def passes(self) -> Passes:
        """Which short cuts hold."""
        return Passes() if self.measured is None else self.measured.passes

    @property
    def editable_layers(self) -> tuple[int, ...]:
        """The blocks that have a down projection to edit; all of them in most families."""
        parts = self.architecture.parts
        return tuple(layer for layer in range(self.layers) if parts(layer).ffn_output is not None)

    def ffn_factor(self, layer: int) -> float | None:
        """c, where a change d of the down projection's output in block `layer` changes the block's output by c d.

        1 in most families; the residual multiplier where there is one (Granite's); None where the FFN's output is
        normalised or gated behind the projection, so that no c exists: there a value stands at the projection.
        """
        if self.measured is not None:
            return self.measured.factors[layer]
        return None if self.architecture.post_norm else 1.0

    @property
    def layers(self) -> int:
        """How many blocks the model has."""
        return len(cast(nn.ModuleList, self.model.get_submodule(self.architecture.blocks)))

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the embeddings."""
        return device_of(self.model.get_submodule(self.architecture.embeddings))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights that edits are written to."""
        return self.site("ffn", self.editable_layers[0]).weight.dtype

    @property
    def max_length(self) -> int:
        """The longest input in tokens that the configuration allows."""
        text = self.model.config.get_text_config(decoder=True)
        named = (getattr(text, name, None) for name in LENGTHS)
        return int(next((length for length in named if length), 2**31 - 1))

    @property
    def vocabulary(self) -> int:
        """How many logits the head gives: as many as the tokenizer has words, or more where the head is padded."""
        head = self.model.get_submodule(self.architecture.head)
        return Site("head", 0, self.architecture.head, head).d_out

    @property
    def takes_positions(self) -> bool:
        """Whether a pass can be told the position of each token (`Tokens.earlier`)."""
        return "position_ids" in inspect.signature(self.model.forward).parameters

    @property
    def parallel(self) -> bool:
        """Whether a block runs attention and FFN side by side."""
        if self.measured is not None:
            return self.measured.parallel
        return self.architecture.runs_in_parallel(self.model.config)

    @property
    def fingerprint(self) -> str:
        """A digest of the weights as they are without what the ledger has written: identifies the unedited model."""
        originals = self.ledger.originals
        return fingerprint_of(
            (name, originals[name] if name in originals else self._stored(name))
            for name, _ in self.model.named_parameters()
        )

    def measure_fingerprint(self) -> str:
        """A digest of the weights as they stand now."""
        return fingerprint_of((name, self._stored(name)) for name, _ in self.model.named_parameters())

    def _stored(self, name: str) -> Tensor:
        """A parameter wherever it lies."""
        owner, _, parameter = name.rpartition(".")
        return stored(self.model.get_submodule(owner), parameter)

    def check_layer(self, layer: int, setting: str = "layers") -> None:
        """Raise `LayerOutOfRange` unless the model has block `layer`."""
        if not 0 <= layer < self.layers:
            raise LayerOutOfRange(
                f"Setting {setting!r} names block {layer}, but {self.name} has blocks 0 to {self.layers - 1}. "
                "Choose layers inside that range."
            )

    def site(self, kind: str, layer: int) -> Site:
        """The output map of `kind` ("ffn" or "attention") in block `layer`.

        Raises:
            LayerOutOfRange: the model has no such block.
        """
        self.check_layer(layer)
        path = self.architecture.site_path(kind, layer)
        return Site(kind, layer, path, self.model.get_submodule(path))

    def block_path(self, layer: int) -> str:
        """The module path of block `layer`."""
        return self.architecture.block_path(layer)

    def block_sites(self, layer: int) -> list[Site]:
        """Every parameter of block `layer`, linear maps and all others, in the model's own order.

        Raises:
            LayerOutOfRange: the model has no such block.
        """
        self.check_layer(layer)
        block = self.model.get_submodule(self.block_path(layer))
        return [
            self._parameter_site(f"{self.block_path(layer)}.{name}", layer)
            for name, _ in block.named_parameters()
        ]

    def site_at(self, path: str) -> Site:
        """The weight that a path names: a linear map by its module, any other parameter of a block by its own name.

        Raises:
            KeyError: no block of the model has it.
        """
        within = path.removeprefix(f"{self.architecture.blocks}.")
        number = within.partition(".")[0]
        if within == path or not number.isdigit() or int(number) >= self.layers:
            raise KeyError(path)
        layer = int(number)
        for kind in ("ffn", "attention"):
            if self.architecture.path_if_any(kind, layer) == path:
                return self.site(kind, layer)
        for site in self.block_sites(layer):
            if site.path == path:
                return site
        raise KeyError(path)

    def _parameter_site(self, name: str, layer: int) -> Site:
        """The site of a parameter, which a linear map's weight shares with the map."""
        owner, _, parameter = name.rpartition(".")
        module = self.model.get_submodule(owner)
        linear = parameter == "weight" and isinstance(module, nn.Linear | Conv1D)
        return Site("parameter", layer, owner if linear else name, module, parameter)

    def forward(self, tokens: Tokens, cache: Cache | None = None) -> None:
        """Run the model for its hooks' sake; a `StopForward` ends it early, quietly. `cache` grows."""
        with suppress(StopForward):
            self._call(tokens, cache)

    def logits_at(
        self,
        tokens: Tokens,
        rows: Int[Tensor, " read"],
        positions: Int[Tensor, " read"],
        cache: Cache | None = None,
    ) -> Float[Tensor, "read vocab"]:
        """The model's own logits (its caps and scales included) at the given places, in the order given.

        Only those places reach the head: a vocabulary times every position would be most of a small model's work.
        `cache` holds the tokens that come before; it grows.
        """

        def keep(hidden: Tensor) -> Tensor:
            return hidden[rows.to(hidden.device), positions.to(hidden.device)].unsqueeze(0)

        return self.logits_of(tokens, keep, cache)

    def logits_of(
        self, tokens: Tokens, read: Change, cache: Cache | None = None
    ) -> Float[Tensor, "read vocab"]:
        """The model's own logits of what `read` makes of the head's input [row, seq, d]: something [1, read, d]."""
        with self.hooked({self.architecture.head: read}, "input"):
            return self._call(tokens, cache)[0]

    def block_output(
        self, tokens: Tokens, layer: int, cache: Cache | None = None
    ) -> tuple[Float[Tensor, "... d_model"], bool]:
        """The residual stream [row, seq, d] after block `layer`, and whether the block hands it on inside a tuple.

        Without gradients. `cache` gets the keys and values of every block; without one the pass ends at the block.
        """
        outputs, tuples = self.block_outputs(tokens, [layer], cache)
        return outputs[layer], tuples

    def block_outputs(
        self, tokens: Tokens, layers: Sequence[int], cache: Cache | None = None
    ) -> tuple[dict[int, Float[Tensor, "... d_model"]], bool]:
        """The same for several blocks, in ascending order."""
        seen: list[object] = []

        def read(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            seen.append(output)
            if cache is None and len(seen) == len(set(layers)):
                raise StopForward

        def first(hidden: Tensor) -> Tensor:
            return hidden[:1, :1]

        with torch.no_grad(), self.hooked({self.architecture.head: first}, "input"), ExitStack() as handles:
            for layer in dict.fromkeys(layers):
                handle = self.model.get_submodule(self.block_path(layer)).register_forward_hook(read)
                handles.callback(handle.remove)
            self.forward(tokens, cache)
        tuples = isinstance(seen[0], tuple | list)
        found = [cast("tuple[Tensor, ...]", one)[0] if tuples else cast(Tensor, one) for one in seen]
        return dict(zip(dict.fromkeys(layers), found, strict=True)), tuples

    def values_at(
        self,
        tokens: Tokens,
        positions: Int[Tensor, " row"],
        inputs_of: Sequence[str] = (),
        outputs_of: Sequence[str] = (),
    ) -> dict[str, Float[Tensor, "row d"]]:
        """Inputs and outputs of modules at one position a row, without gradients; stops after the last one needed."""
        seen: dict[str, Tensor] = {}
        wanted = len({*inputs_of, *outputs_of})
        assert wanted == len(inputs_of) + len(outputs_of), "values are told apart by path alone"

        def reader(path: str) -> Change:
            def read(value: Tensor) -> None:
                rows = torch.arange(len(positions), device=value.device)
                seen[path] = value[rows, positions.to(value.device)].detach()
                if len(seen) == wanted:
                    raise StopForward

            return read

        with (
            torch.no_grad(),
            self.hooked({path: reader(path) for path in inputs_of}, "input"),
            self.hooked({path: reader(path) for path in outputs_of}, "output"),
        ):
            self.forward(tokens)
        return seen

    @contextmanager
    def hooked(self, changes: Mapping[str, Change], where: Where) -> Generator[None]:
        """For a while, let each change see (and replace) the input or output of the module at its path."""
        with ExitStack() as handles:
            for path, change in changes.items():
                handle = self._attach(self.model.get_submodule(path), change, where)
                handles.callback(handle.remove)
            yield

    def _attach(self, module: nn.Module, change: Change, where: Where) -> torch.utils.hooks.RemovableHandle:
        change = self._unflattened(change)
        if where == "input":
            return module.register_forward_pre_hook(_input_hook(change), with_kwargs=True)
        return module.register_forward_hook(_output_hook(change))

    def _unflattened(self, change: Change) -> Change:
        """Some families run their FFNs over all tokens of all rows in one list [row * seq, d]: a change sees rows."""

        def apply(value: Tensor) -> Tensor | None:
            rows, seq = self._running
            if value.ndim != 2 or len(value) != rows * seq or not value.is_floating_point():
                return change(value)
            changed = change(value.reshape(rows, seq, -1))
            return None if changed is None else changed.flatten(0, 1)

        return apply

    def _call(self, tokens: Tokens, cache: Cache | None = None) -> Float[Tensor, "row seq vocab"]:
        """The padding stands right of every real token, which a causal model never lets see it: no mask is needed.

        Masking it would leave padded positions behind a sliding window with nothing to see at all, and their NaN
        would spread (0 * NaN) to the real tokens of the next block.
        """
        ids = tokens.ids.to(self.device)
        self._running = (ids.shape[0], ids.shape[1])
        before = 0 if cache is None else cache.get_seq_length()
        mask = torch.ones(len(ids), before + ids.shape[1], dtype=torch.long, device=ids.device)
        words: dict[str, Tensor] = {}
        if tokens.earlier is not None:  # every token sees itself at least: what is masked spreads no NaN
            earlier = tokens.earlier.to(ids.device)[:, None]
            mask[:, :before] = torch.arange(before, device=ids.device) >= before - earlier
            positions = earlier + torch.arange(ids.shape[1], device=ids.device)
            words["position_ids"] = positions.clamp(max=self.max_length - 1)
        out = self.model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=cache is not None, **words
        )
        return cast(Tensor, out.logits)


def _input_hook(change: Change) -> Callable[..., tuple[tuple[object, ...], dict[str, object]] | None]:
    def hook(
        module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]] | None:
        if args:
            changed = change(cast(Tensor, args[0]))
            return None if changed is None else ((changed, *args[1:]), kwargs)
        name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
        changed = change(cast(Tensor, kwargs[name]))
        return None if changed is None else (args, {**kwargs, name: changed})

    return hook


def _output_hook(change: Change) -> Callable[..., object]:
    def hook(module: nn.Module, args: tuple[object, ...], output: object) -> object:
        if isinstance(output, tuple | list):
            parts = cast("tuple[object, ...]", output)
            changed = change(cast(Tensor, parts[0]))
            return None if changed is None else (changed, *parts[1:])
        return change(cast(Tensor, output))

    return hook
