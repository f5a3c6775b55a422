"""Keys and current values, layer after layer, at the cost of about one pass.

A key in block l depends on the residual stream that enters it, and that on the weights below alone. So the streams of
all rows are kept: once block l is written, only the blocks from l on run again, up to the next site that is asked for.
In that site's own block the FFN runs at the last token alone, where nothing else is asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache

from errata.models import Change, EditableModel, Site, StopForward, Tokens, Where, bypassed, cache_rows
from errata.passes.row_batches import RowBatch
from errata.passes.shelf import Shelf

Read = Callable[[Tensor], Tensor]
"""What is kept of a module's input or output [row, seq, d]."""


@dataclass(frozen=True)
class Wanted:
    """What is to be read at each row's last token."""

    site: Site
    """The map whose input is the key."""
    value: str | None = None
    """The path of a module whose output is read in the same pass."""
    top: int = 0
    """The block that it lies in, or is."""


@dataclass(frozen=True)
class Seen:
    """What was read."""

    keys: Float[Tensor, "row d_in"]
    values: Float[Tensor, "row d_model"] | None


class Streams:
    """The residual streams of batches of rows; between two readings, nothing below the later one's site may change."""

    def __init__(self, model: EditableModel, batches: Sequence[RowBatch], budget: int) -> None:
        self._model = model
        self._batches = batches
        self._shelf = Shelf(budget)
        self._entry = [0] * len(batches)
        self._tuples = model.block_output(_tokens(batches[0].ids[:1, :1]), 0)[1]

    def read(self, number: int, wanted: Wanted) -> Seen:
        """Read one batch; its site lies in no lower block than that of the reading before."""
        batch, site = self._batches[number], wanted.site
        assert site.layer >= self._entry[number], "layers are read in ascending order"
        last = batch.last
        inputs: dict[str, Read] = {site.path: _at(last)}
        outputs: dict[str, Read] = {}
        alone: dict[str, Change] = {}
        if wanted.value is not None:
            outputs[wanted.value] = _at(last)
        elif site.kind == "ffn" and self._model.passes.ffn_alone:
            paths = self._model.architecture.ffn_paths(site.layer)
            alone = dict.fromkeys(paths[:-1], lambda value: _at(last)(value).unsqueeze(1))
            inputs[site.path] = lambda value: value[:, 0]
        cache = self._prefix_cache(number, wanted) if batch.start else None
        found = self._pass(2 * number, batch.ids, site.layer, inputs, outputs, cache, alone)
        self._entry[number] = site.layer if self._model.passes.enters_blocks else 0
        value = None if wanted.value is None else found["output", wanted.value]
        return Seen(found["input", site.path], value)

    def _prefix_cache(self, number: int, wanted: Wanted) -> Cache:
        """Keys and values of the shared tokens, row by row, in every block that the rows are about to run."""
        batch = self._batches[number]
        top, architecture = max(wanted.top, wanted.site.layer), self._model.architecture
        end = architecture.path_if_any("attention", top) or architecture.site_path("ffn", top)
        cache = DynamicCache()  # of whole texts: the model's own would forget what has left a sliding window
        self._pass(
            2 * number + 1, batch.prefixes, wanted.site.layer, {end: lambda value: value[:0]}, {}, cache, {}
        )
        return cache_rows(cache, batch.prefix_of, self._entry[number])

    def _pass(
        self,
        place: int,
        ids: Int[Tensor, "row seq"],
        layer: int,
        inputs: Mapping[str, Read],
        outputs: Mapping[str, Read],
        cache: Cache | None,
        changes: Mapping[str, Change],
    ) -> dict[tuple[Where, str], Tensor]:
        """Run from where the stream at `place` was kept until all is read; keep the stream that enters `layer`."""
        entry = self._entry[place // 2]
        below = self._model.block_path(layer - 1)
        keep = layer > entry and self._model.passes.enters_blocks
        if keep:
            outputs = {**outputs, below: torch.clone}
        found: dict[tuple[Where, str], Tensor] = {}

        def reader(where: Where, path: str, read: Read) -> Change:
            def seen(value: Tensor) -> None:
                found[where, path] = read(value)
                if len(found) == len(inputs) + len(outputs):
                    raise StopForward

            return seen

        before: dict[str, Change] = {path: reader("input", path, read) for path, read in inputs.items()}
        after: dict[str, Change] = {path: reader("output", path, read) for path, read in outputs.items()}
        with (
            torch.no_grad(),
            bypassed(self._model, entry, self._shelf.get(place), self._tuples),
            self._model.hooked({**changes, **before}, "input"),
            self._model.hooked(after, "output"),
        ):
            self._model.forward(_tokens(ids), cache)
        if keep:
            self._shelf.put(place, found.pop(("output", below)))
        return found


def _at(last: Int[Tensor, " row"]) -> Callable[[Tensor], Float[Tensor, "row d"]]:
    """Of a module's input or output [row, seq, d], each row's last token."""

    def read(value: Tensor) -> Tensor:
        rows = torch.arange(len(last), device=value.device)
        return value[rows, last.to(value.device)].detach()

    return read


def _tokens(ids: Int[Tensor, "row seq"]) -> Tokens:
    return Tokens(ids, torch.ones_like(ids, dtype=torch.bool))
