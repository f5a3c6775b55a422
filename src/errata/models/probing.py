"""Passes over a few tokens in which every block is probed at once, for `measuring.py`.

One clean pass is recorded. In the others each block's output is read and then handed on as it was in the clean pass,
so that no block sees what was done to another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from errata.models.model import Change, EditableModel, StopForward, Tokens

TEXT = "The river runs through the old town, and the council met there because it rained."
COUNT = 8
"""Tokens that are run."""
TOUCHED = (2, 3)
"""Where outputs are changed: two tokens, by changes of different sizes, so that a norm or a gate shows."""
LATER = 5
"""Where the stream is changed that enters a block or an FFN."""


@dataclass
class Reading:
    """What one pass gave, by block; for the output maps, by kind and block."""

    entering: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    leaving: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    inputs: dict[tuple[str, int], Tensor] = field(default_factory=dict[tuple[str, int], Tensor])
    outputs: dict[tuple[str, int], Tensor] = field(default_factory=dict[tuple[str, int], Tensor])
    """With what was added to them."""
    calls: dict[str, int] = field(default_factory=dict[str, int])
    norms: dict[int, list[tuple[Tensor, Tensor]]] = field(
        default_factory=dict[int, list[tuple[Tensor, Tensor]]]
    )
    """Input and output of each norm of a block."""

    def keep(self, into: dict[object, Tensor], key: object, path: str = "") -> Change:
        """Record what passes by, and how often."""

        def read(value: Tensor) -> None:
            into[key] = value.detach().clone()
            self.calls[path] = self.calls.get(path, 0) + 1

        return read


class Probe:
    """The passes of one model."""

    def __init__(self, model: EditableModel) -> None:
        self.model, self.record = model, model.architecture
        words = int(cast(nn.Embedding, model.model.get_input_embeddings()).weight.shape[0])
        ids = cast("list[int]", model.tokenizer(TEXT).input_ids)
        ids = [one % words for one in (ids * COUNT)[:COUNT]]
        self.tokens = Tokens(torch.tensor([ids]), torch.ones(1, COUNT, dtype=torch.bool))
        self.noise = torch.Generator().manual_seed(0)
        self.paths = {
            (kind, layer): path
            for layer in range(model.layers)
            for kind in ("ffn", "attention")
            if (path := model.architecture.path_if_any(kind, layer)) is not None
        }

    def clean(self) -> tuple[Reading, Float[Tensor, " vocab"]]:
        """One pass with nothing changed, and the logits after the last token."""
        seen = Reading()
        before, after = self._readers(seen)
        for layer in range(self.model.layers):
            block = self.record.block_path(layer)
            for name, child in self.model.model.get_submodule(block).named_children():
                if "norm" in type(child).__name__.lower():
                    pair = _Pair(seen.norms.setdefault(layer, []))
                    before[f"{block}.{name}"], after[f"{block}.{name}"] = pair.begin, pair.end
        with self.model.hooked(before, "input"), self.model.hooked(after, "output"):
            logits = self.model.logits_at(self.tokens, torch.tensor([0]), torch.tensor([COUNT - 1]))
        return seen, logits[0]

    def touched_ffn(self, clean: Reading) -> Reading:
        """Each down projection's output changed at two tokens, and what enters its FFN at a later one."""
        inputs: dict[str, Change] = {}
        for kind, layer in self.paths:
            for path in self.record.ffn_paths(layer)[:-1] if kind == "ffn" else ():
                inputs[path] = self._disturbed
        return self._probed(clean, "ffn", inputs)

    def touched_attention(self, clean: Reading) -> Reading:
        """Each attention's output changed at two tokens, and what enters the block at a later one."""
        inputs: dict[str, Change] = {
            self.record.block_path(layer): self._disturbed for layer in clean.entering
        }
        return self._probed(clean, "attention", inputs)

    def _disturbed(self, value: Tensor) -> Tensor:
        """A tensor with noise at a later token."""
        return self._added(value, (LATER,), value)

    def _probed(self, clean: Reading, kind: str, disturbed: Mapping[str, Change]) -> Reading:
        """A pass in which every block gets the clean stream, and the outputs of one kind of map are changed."""
        seen = Reading()
        before, after = self._readers(seen)
        for layer in clean.leaving:
            path = self.record.block_path(layer)
            after[path] = _then(after[path], self._handing_on(clean, layer))
            own = self.paths.get((kind, layer))
            if own is not None:
                after[own] = self._adding(clean, layer, after[own])
        before |= {path: _then(before.get(path), change) for path, change in disturbed.items()}
        with self.model.hooked(before, "input"), self.model.hooked(after, "output"):
            self.model.forward(self.tokens)
        return seen

    def _readers(self, seen: Reading) -> tuple[dict[str, Change], dict[str, Change]]:
        """What records the inputs and outputs of the blocks, and of the output maps."""
        before: dict[str, Change] = {}
        after: dict[str, Change] = {}
        for layer in range(self.model.layers):
            path = self.record.block_path(layer)
            before[path] = seen.keep(cast("dict[object, Tensor]", seen.entering), layer)
            after[path] = seen.keep(cast("dict[object, Tensor]", seen.leaving), layer, path)
        for key, path in self.paths.items():
            before[path] = seen.keep(cast("dict[object, Tensor]", seen.inputs), key)
            after[path] = seen.keep(cast("dict[object, Tensor]", seen.outputs), key, path)
        return before, after

    def _handing_on(self, clean: Reading, layer: int) -> Callable[[Tensor], Tensor]:
        last = layer == max(clean.leaving)

        def change(value: Tensor) -> Tensor:
            if last:
                raise StopForward
            return clean.leaving[layer]

        return change

    def _adding(self, clean: Reading, layer: int, read: Change) -> Change:
        """Change a map's output by something as large as the block's, and record it as it is then."""

        def change(value: Tensor) -> Tensor:
            stream = clean.leaving[layer]
            changed = self._added(value, TOUCHED, stream if stream.ndim == value.ndim else value)
            read(changed)
            return changed

        return change

    def _added(self, value: Tensor, at: tuple[int, ...], like: Tensor) -> Tensor:
        """A tensor [row, seq, d] with noise at some tokens, as large as `like` is there, and at the next twice so."""
        value = value.clone()
        for number, token in enumerate(at):
            there = at_tokens(like, token).float()
            scale = max(size_of(there) / there.numel() ** 0.5, 1e-3)
            noise = torch.randn(value.shape[-1], generator=self.noise).to(value.device)
            at_tokens(value, token).add_((noise * scale * (1 + number)).to(value))
        return value


def size_of(value: Tensor) -> float:
    """The Euclidean norm over all numbers, in float64."""
    return float(cast(Tensor, torch.linalg.vector_norm(value.double())))


def at_tokens(value: Tensor, which: int | slice) -> Tensor:
    """The values at some tokens (a view): of [row, seq, d], or where a family has several streams of one more axis."""
    axis = value.ndim - 2 if value.shape[-2] == COUNT else 1
    return value[(slice(None),) * axis + (which,)]


class _Pair:
    """Joins a module's input with its output."""

    def __init__(self, into: list[tuple[Tensor, Tensor]]) -> None:
        self._into = into
        self._begun: list[Tensor] = []

    def begin(self, value: Tensor) -> None:
        """See the input."""
        self._begun.append(value.detach())

    def end(self, value: Tensor) -> None:
        """See the output."""
        self._into.append((self._begun.pop(), value.detach()))


def _then(read: Change | None, change: Change) -> Change:
    """See a value as it comes, then change it."""

    def both(value: Tensor) -> Tensor | None:
        if read is not None:
            read(value)
        return change(value)

    return both
