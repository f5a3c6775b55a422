"""What a plan will take: rows per fact, memory, and time, from shapes and one timed matrix product. No model is run.

Time counts floating-point operations. Of every optimization step: forward and backward through the blocks above the
value, for the tokens from the lookup position on, and through the head where the loss reads. Of every layer written:
a Cholesky factor in float64. Second moments that must be measured first are not in it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from errata.facts import Fact
from errata.methods import EditSite, Method
from errata.models import EditableModel
from errata.passes import EncodedRow, encode_rows
from errata.planning.sizes import Needs, Shape, needs_of
from errata.strategies import Strategy
from errata.values import rows_for

SAMPLE = 32
"""Facts whose rows stand for those of all."""
PER_WEIGHT = 6
"""Operations per weight and token: two forward, four backward."""
EFFICIENCY = 0.25
"""The share of a large matrix product's speed that batches of short rows reach."""
BATCH = 32
"""Facts that share a step."""
STEP_SECONDS = 1.5e-3
"""Per step, block and batch, however small."""
SOLVE_SLOWDOWN = 4.0
"""Of a Cholesky factor in float64 against a product in float32."""
KINDS = {
    "rewrite": "prompts behind contexts",
    "kl": "neutral prompts",
    "neighbor": "neighbors",
    "preserve": "other statements",
}


@dataclass(frozen=True)
class Costs:
    """What one run takes."""

    rows: dict[str, float]
    """Texts per fact and step, on average, by what they are for."""
    memory: Needs
    seconds: float | None
    """Expected, within a factor of two or so on an idle machine; all iterations of a strategy are counted. None for a
    method that optimizes no values: its time depends on when training stops."""


@dataclass(frozen=True)
class Work:
    """What the costs depend on."""

    model: EditableModel
    method: Method[Any]
    settings: Any
    facts: Sequence[Fact]
    contexts: int
    strategy: Strategy | None

    def costs(self) -> Costs:
        """The costs.

        Raises:
            FactError: a prompt does not fit the model.
        """
        sites = self.method.sites(self.settings)
        rows = [self._rows(site) for site in sites]
        times = 1 if self.strategy is None else self.strategy.iterations
        speed = _operations_per_second(self.model)
        seconds = sum(self._optimizing(site, each, speed) for site, each in zip(sites, rows, strict=True))
        shape = _shape_of(self.model, self.method.layers(self.settings))
        return Costs(
            rows=self._counts([row for each in rows for row in each]),
            memory=needs_of(shape, self.model.dtype, len(self.facts), self.model.device.type),
            seconds=times * (seconds + self._solving(speed)) if sites else None,
        )

    def _rows(self, site: EditSite) -> list[EncodedRow]:
        """The rows of some of the facts, each prompt behind the empty context alone."""
        return encode_rows(self.model, rows_for(self.facts[:SAMPLE], ("",), site.values), site.lookup)

    def _times(self, row: EncodedRow) -> int:
        return self.contexts if row.row.kind == "rewrite" else 1

    def _counts(self, rows: Sequence[EncodedRow]) -> dict[str, float]:
        facts = min(SAMPLE, len(self.facts))
        counts = dict.fromkeys(KINDS.values(), 0.0)
        for row in rows:
            counts[KINDS[row.row.kind]] += self._times(row) / facts
        return {name: count for name, count in counts.items() if count}

    def _optimizing(self, site: EditSite, rows: Sequence[EncodedRow], speed: float) -> float:
        above = self.model.layers - site.layers[-1]
        block = sum(one.weight.numel() for one in self.model.block_sites(site.layers[-1]))
        head = len(self.model.tokenizer) * self.model.site("ffn", self.model.editable_layers[0]).d_out
        tokens = sum(self._times(row) * (len(row.text.ids) - row.lookup) for row in rows)
        reads = sum(self._times(row) * (len(row.text.target) + 1) for row in rows)
        share = len(self.facts) / min(SAMPLE, len(self.facts))
        operations = PER_WEIGHT * share * (tokens * above * block + reads * head)
        steps, batches = site.values.steps, -(-len(self.facts) // BATCH)
        return steps * (operations / speed + batches * above * STEP_SECONDS)

    def _solving(self, speed: float) -> float:
        needed = self.method.moments(self.model, self.settings)
        return sum(site.d_in**3 / 3 * SOLVE_SLOWDOWN * EFFICIENCY / speed for site in needed)


def _shape_of(model: EditableModel, layers: Sequence[int]) -> Shape:
    site = model.site("ffn", layers[0])
    return Shape(
        name=model.name,
        parameters=sum(parameter.numel() for parameter in model.model.parameters()),
        blocks=model.layers,
        layers=tuple(layers),
        d_model=site.d_out,
        d_in=site.d_in,
        vocabulary=len(model.tokenizer),
    )


def _operations_per_second(model: EditableModel) -> float:
    """What products of the model's own shape reach here, of which short rows reach a share."""
    site = model.site("ffn", model.editable_layers[0])
    left = torch.ones(256, site.d_in, dtype=site.weight.dtype, device=site.device)
    right = torch.ones(site.d_in, site.d_out, dtype=site.weight.dtype, device=site.device)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        float((left @ right)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - began)
    return EFFICIENCY * 2 * left.numel() * site.d_out / best
