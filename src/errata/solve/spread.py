"""The Spread stage: from the values v* to an update of every critical layer.

    Delta^l = R K^T (lambda E[k k^T] + K K^T)^-1,      r_i = (v*_i - current value at layer L) / share(l)

in float64, layers ascending, each with the weights of the layers below already changed (PMET eq. 9 and 11, MEMIT
alg. 1). Nothing here outlives the call: the weights are put back, and the updates are handed out as `Delta`s.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from errata.edits import Delta, Realized, write_deltas
from errata.errors import CovarianceError
from errata.models import EditableModel, Site, solving_device
from errata.runtime import Progress, processes, silent
from errata.solve.keys import KeyPrompts, KeysSeen, KeyStreams
from errata.solve.least_squares import THIN
from errata.solve.leverage import Gauge, GaugedSolver, Solver, SumsSolver
from errata.solve.settings import KeySettings, SiteKind, SpreadSite

SHARES: Mapping[str, Callable[[int], float]] = {"even": float, "sqrt": math.sqrt}
"""By what the residual is divided when so many critical layers are left, this one included."""


@dataclass(frozen=True)
class Write:
    """One kind of map to write in every critical layer, and the value at layer L that it is to bring about."""

    kind: SiteKind
    path: str
    """The module at layer L whose output should become `value`."""
    value: Float[Tensor, "fact d_model"]


@dataclass(frozen=True)
class SpreadStep:
    """What one solve used: kept on request, for tests and analyses."""

    keys: Float[Tensor, "fact d_in"]
    current: Float[Tensor, "fact d_model"]
    residual: Float[Tensor, "fact d_model"]
    """v* - current value, before it is shared out."""


class SpreadWords(TypedDict, total=False):
    """The keywords of `spread`."""

    on_progress: Progress
    steps: dict[str, SpreadStep] | None
    realized: dict[str, Realized] | None
    preserved: KeyPrompts | None


def spread(
    model: EditableModel,
    target: SpreadSite,
    writes: Sequence[Write],
    prompts: KeyPrompts,
    solver: Solver,
    **words: Unpack[SpreadWords],
) -> dict[str, Delta]:
    """Share the residuals out over the critical layers and solve for each update; keys are module paths.

    `solver` is asked once for each site, when the layers below have been changed. With several kinds, attention is
    written before the FFN of the same layer. The keys p_j of `preserved` are extra rows, of weight w =
    `keys.preserve_weight`, with a zero residual: K gets sqrt(w) p_j, whatever the solver. What each solve used is put
    into `steps`, and what share of a residual its weight realizes into `realized`.

    Raises:
        CovarianceError: an update cannot be solved for.
    """
    return _Spread(target, prompts, solver, **words).run(model, sorted(writes, key=lambda write: write.kind))


@dataclass(frozen=True)
class _Spread:
    """The stage for all layers."""

    target: SpreadSite
    prompts: KeyPrompts
    solver: Solver
    on_progress: Progress = silent
    steps: dict[str, SpreadStep] | None = None
    realized: dict[str, Realized] | None = None
    preserved: KeyPrompts | None = None

    def run(self, model: EditableModel, writes: Sequence[Write]) -> dict[str, Delta]:
        """The update of every site; the weights are put back."""
        layers, keys = self.target.layers, self.target.keys
        deltas: dict[str, Delta] = {}
        with model.ledger.temporary():
            streams = KeyStreams(self.prompts, max(layers), all_together=True)
            kept_streams = (
                KeyStreams(self.preserved, max(layers), all_together=True) if self.preserved else None
            )
            for number, layer in enumerate(sorted(layers)):
                share = SHARES[self.target.spread.share](len(layers) - number)
                for write in writes:
                    site = model.site(write.kind, layer)
                    seen = streams.read(site, write.path, keys.average)
                    kept = _preserved(kept_streams, site, keys)
                    by = share * _reach(model, write, layers[-1], layer)
                    delta, realized = _of_main(_SiteUpdate(self, site, write, by, kept), seen)
                    if self.realized is not None and realized is not None:
                        self.realized[site.path] = realized
                    write_deltas(model, {site.path: delta})
                    deltas[site.path] = delta
                self.on_progress("spread", number + 1, len(layers))
        return deltas


def _reach(model: EditableModel, write: Write, top: int, layer: int) -> float:
    """What a change of the map is multiplied by on its way to where the value stands: 1 but for a scaled residual."""
    at_block = write.kind == "ffn" and write.path == model.block_path(top)
    return (model.ffn_factor(layer) or 1.0) if at_block else 1.0


@dataclass(frozen=True)
class _SiteUpdate:
    """The update of one site."""

    stage: _Spread
    site: Site
    write: Write
    share: float
    """By what the residual is divided."""
    kept: Float[Tensor, "kept d_in"] | None
    """The keys whose output is to stay, each with the root of its weight."""

    def solve(self, seen: Iterable[KeysSeen]) -> tuple[Delta, Realized | None]:
        """Of facts too many for thin factors only the sums K K^T and R K^T are ever held."""
        rows = self.stage.prompts.facts + (0 if self.kept is None else len(self.kept))
        many = rows > THIN * min(self.site.d_out, self.site.d_in) and self.stage.steps is None
        solver = self.stage.solver
        gauge = solver.gauge(self.site) if isinstance(solver, GaugedSolver) else None
        if isinstance(solver, SumsSolver) and many:
            cross, key_sum = self._sums(seen, gauge)
            solver, realized = _settled(solver, gauge, rows=False)
            assert isinstance(solver, SumsSolver)
            return solver.solve_sums(cross, key_sum, self.site), realized
        return self._from_rows(seen, gauge)

    def _sums(
        self, seen: Iterable[KeysSeen], gauge: Gauge | None
    ) -> tuple[Float[Tensor, "d_out d_in"], Float[Tensor, "d_in d_in"]]:
        """R K^T and K K^T, in float64; the gauge sees every chunk."""
        site, device = self.site, solving_device(self.site.device)
        key_sum = torch.zeros(site.d_in, site.d_in, dtype=torch.float64, device=device)
        cross = torch.zeros(site.d_out, site.d_in, dtype=torch.float64, device=device)
        for part in seen:
            residual = self.write.value[list(part.facts)].to(part.current) - part.current
            keys = part.keys.to(key_sum)
            key_sum.addmm_(keys.T, keys)
            cross.addmm_(residual.to(cross).T, keys, alpha=1 / self.share)
            if gauge is not None:
                gauge.see(keys)
        if self.kept is not None:
            kept = self.kept.to(key_sum)
            key_sum.addmm_(kept.T, kept)
        _check_read(site, key_sum, cross)
        return cross, key_sum

    def _from_rows(self, seen: Iterable[KeysSeen], gauge: Gauge | None) -> tuple[Delta, Realized | None]:
        keys, current = _in_order(seen, self.stage.prompts.facts)
        residual = self.write.value.to(current) - current
        _check_read(self.site, keys, residual)
        if self.stage.steps is not None:
            self.stage.steps[self.site.path] = SpreadStep(keys, current, residual)
        if gauge is not None:
            gauge.see(keys)
        solver, realized = _settled(self.stage.solver, gauge)
        if self.kept is None:
            return solver(residual / self.share, keys, self.site), realized
        nothing = residual.new_zeros(len(self.kept), residual.shape[1])
        residuals = torch.cat([residual / self.share, nothing])
        return _trimmed(solver(residuals, torch.cat([keys, self.kept]), self.site)), realized


def _settled(solver: Solver, gauge: Gauge | None, rows: bool = True) -> tuple[Solver, Realized | None]:
    """The solver for one site, its weight settled by the leverages that the gauge has seen."""
    return (solver, None) if gauge is None else gauge.solver(rows)


def _preserved(
    streams: KeyStreams | None, site: Site, settings: KeySettings
) -> Float[Tensor, "kept d_in"] | None:
    """The keys whose output is to stay, each with the root of its weight; None where there are none."""
    if streams is None:
        return None
    parts = [part.keys for part in streams.read(site, None, settings.average)]
    return torch.cat(parts) * math.sqrt(settings.preserve_weight)


def _of_main(update: _SiteUpdate, seen: Iterable[KeysSeen]) -> tuple[Delta, Realized | None]:
    """The update that the main process finds; the others only hand it the keys that they have seen."""
    if not processes.is_main():
        deque(seen, maxlen=0)

    def solve() -> dict[str, Tensor]:
        delta, realized = update.solve(seen)
        numbers = [] if realized is None else [realized.weight, realized.leverage, realized.share]
        return {**delta.tensors, "realized": torch.tensor(numbers, dtype=torch.float64)}

    made = processes.tensors_of_main(solve)
    numbers = cast("list[float]", made["realized"].tolist())
    delta = Delta(made.get("left"), made.get("right"), made.get("dense"))
    return delta, Realized(*numbers) if numbers else None


def _trimmed(delta: Delta) -> Delta:
    """The same without the factors of rows that shall bring about nothing."""
    if delta.left is None or delta.right is None:
        return delta
    used = (delta.left != 0).any(dim=0)
    return Delta(delta.left[:, used].contiguous(), delta.right[used].contiguous())


def _check_read(site: Site, *read: Tensor) -> None:
    """Raise where what the model computes cannot be solved with.

    Raises:
        CovarianceError: keys or values are infinite or not a number.
    """
    if not all(bool(part.isfinite().all()) for part in read):
        dtype = str(site.weight.dtype).removeprefix("torch.")
        raise CovarianceError(
            f"The facts' keys at {site.path}, or what is left to write there, are infinite or not a number. Where the "
            f"model overflows in {dtype}, load it with --dtype bfloat16 or float32; otherwise it is damaged."
        )


def _in_order(
    seen: Iterable[KeysSeen], facts: int
) -> tuple[Float[Tensor, "fact d_in"], Float[Tensor, "fact d_model"]]:
    """Keys and current values of all facts as they were given."""
    parts = list(seen)
    place = torch.tensor([index for part in parts for index in part.facts]).argsort()
    keys, current = torch.cat([part.keys for part in parts]), torch.cat([part.current for part in parts])
    return keys[place.to(keys.device)], current[place.to(current.device)]
