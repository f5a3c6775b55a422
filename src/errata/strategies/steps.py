"""A method in steps: batches of facts one after the other, each written again and again until the weights carry it.

Iterative editing (paper 2, section 3.1): k = 1, 2, ...: Optimization from theta_k, Spread to theta_k+1. With

    p(theta, h) = (1/m) sum_i exp(mean over contexts NLL_i)                                    (paper 2, eq. 4)
    Delta p_k   = p(theta_k+1, spread result) - p(theta_k, optimised value)

the loop ends where the rule `stop` says so, and after `iterations` at the latest.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, get_args

from torch import Tensor

from errata.edits import Edit, Realized, SettingValue
from errata.errors import Collapsed, NoFactsLeft, SettingsError
from errata.facts import Fact
from errata.methods import NOT_FINITE, Changes, Method, Run
from errata.runtime import Progress, silent
from errata.strategies.guard import Guard, Watch
from errata.strategies.writing import Writer, norms, root_of_squares
from errata.values import Outcome, measure_targets

logger = logging.getLogger(__name__)

Stop = Literal["delta_p", "monotonic", "small_change", "never"]
OnWrite = Callable[[int], None]
"""Called after each write that holds, with its number, while it is in the weights."""
Record = dict[str, SettingValue]
MOST_NLL = 690.0
"""exp of it is still a number."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """How a method is repeated.

    Stop rules: "delta_p": |Delta p_k| <= epsilon. "monotonic": |Delta p_k+1| >= |Delta p_k|, and the last write is
    taken back. "small_change": |p(theta_k+1) - p(theta_k)| <= epsilon between two iterations. "never".

    Raises:
        SettingsError: a number that no run can use.
    """

    iterations: int = 1
    stop: Stop = "delta_p"
    epsilon: float = 1.0
    keep_best: bool = False
    """Keep the iteration after which p of the spread result was lowest, and take back those after it."""
    only_underedited: bool = False
    """From the second iteration on optimise only facts whose target is not the argmax behind every context; the others
    keep their values, and still enter K and R."""
    batch_size: int | None = None
    """Facts that are written together. None: all, or one by one where a guard watches a method that writes in
    sequence."""
    guard: Guard | None = None

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        if self.iterations < 1:
            raise SettingsError(f"The number of iterations must be at least 1: {self.iterations}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise SettingsError(f"The batch size must be at least 1: {self.batch_size}.")
        if not self.epsilon >= 0:
            raise SettingsError(f"epsilon must be 0 or more: {self.epsilon}.")
        if self.stop not in get_args(Stop):
            raise SettingsError(
                f"There is no stop rule {self.stop!r}. Choose one of {', '.join(get_args(Stop))}."
            )

    def described(self) -> dict[str, SettingValue]:
        """For the record of an edit."""
        values: dict[str, SettingValue] = {**asdict(self), "guard": None}
        if self.guard is not None:
            values["guard"] = (
                f"perplexity x {self.guard.max_perplexity_ratio:g}, accuracy x {self.guard.min_accuracy_ratio:g}"
            )
        return values


def run_steps(run: Run, facts: Sequence[Fact], strategy: Strategy, on_write: OnWrite | None = None) -> Edit:
    """One edit that does what all writes of a strategy did, with the record of each; the model is left as it was.

    Raises:
        Collapsed: the very first write broke a bound of the guard, or made a weight infinite or not a number; nothing
            is left to keep.
        NoFactsLeft: no fact could be written.
    """
    steps = _Steps(run, strategy, Writer(run.model), on_write)
    with steps.writer.put_back():
        failed = steps.write_all(facts)
    changes = Changes(steps.writer.total(), failed, realized=steps.realized)
    described = {**strategy.described(), "ended_by": steps.ended_by}
    return run.as_edit(facts, changes, described, steps.history)


def check_strategy(method: Method[object], strategy: Strategy) -> None:
    """Raise where the method cannot be repeated as asked.

    Raises:
        SettingsError: iterations of a method that optimizes no values.
    """
    if strategy.iterations > 1 and not method.optimizes_values:
        raise SettingsError(
            f"{method.name} optimizes no values, so there is nothing to iterate. Iterations work with the "
            "locate-then-edit methods: pmet, memit, rome, alphaedit, two_site."
        )


@dataclass
class _Batch:
    """The facts of one batch while it is iterated."""

    facts: list[Fact]
    index: list[int]
    """Where each stood in the file."""
    known: dict[int, Outcome] = field(default_factory=dict[int, Outcome])
    records: list[Record] = field(default_factory=list[Record])
    sums: list[Mapping[str, Tensor]] = field(default_factory=list[Mapping[str, Tensor]])
    """Of each record, the sum of k k^T over the facts, for the methods that want it."""

    def without(self, failed: Mapping[int, str]) -> "_Batch":
        """The batch without the facts that failed."""
        kept = [place for place in range(len(self.facts)) if place not in failed]
        facts, index = [self.facts[place] for place in kept], [self.index[place] for place in kept]
        known = {new: self.known[old] for new, old in enumerate(kept) if old in self.known}
        return _Batch(facts, index, known, self.records, self.sums)


@dataclass
class _Steps:
    """One run of a strategy."""

    run: Run
    strategy: Strategy
    writer: Writer
    on_write: OnWrite | None
    history: list[Record] = field(default_factory=list[Record])
    earlier: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """The sum of k k^T over the facts of earlier batches, for the methods that want it."""
    realized: dict[str, Realized] = field(default_factory=dict[str, Realized])
    """What each weight of the first solve at a site amounts to."""
    ended_by: str | None = None
    """What was wrong with the write that was taken back, where one was."""

    def write_all(self, facts: Sequence[Fact]) -> dict[int, str]:
        """Write every batch; the facts that were left out, each with the reason."""
        guard, failed = self.strategy.guard, dict[int, str]()
        watch = Watch(guard, self.run.model, facts, self.run.seed) if guard else None
        size = self.strategy.batch_size or (
            1 if watch and self.run.method.order == "sequence" else len(facts)
        )
        for start in range(0, len(facts), size):
            end = min(start + size, len(facts))
            batch = _Batch(list(facts[start:end]), list(range(start, end)))
            reasons, complaint = self._write_batch(batch, watch, start // size + 1)
            failed |= reasons
            self.run.on_progress("writing", end, len(facts))
            if complaint:
                return self._ended(batch, complaint, end, len(facts)) | failed
        if not self.writer.writes:
            raise NoFactsLeft(f"No fact could be written: of the first one, {failed[0]}.")
        return failed

    def _ended(self, batch: _Batch, complaint: str, end: int, count: int) -> dict[int, str]:
        """The last write was taken back, and the run ends: the facts that were not written."""
        written = bool(batch.records)
        if not self.writer.writes:
            raise Collapsed(
                f"The first write already harms the model beyond bounds: {complaint}. It was taken back, and no edit "
                "is left. Write fewer facts at once (--batch-size), or more gently (a larger "
                "solve.covariance_weight, a smaller values.clamp), or raise the guard's bound."
            )
        number = len(self.history) + 1
        self.ended_by = f"write {number}: {complaint}"
        left = ([] if written else batch.index) + list(range(end, count))
        logger.warning(
            "The run has ended at write %d: %s. That write was taken back, and the last good weights stay; %d of %d "
            "facts were not tried or not written.",
            number,
            complaint,
            len(left),
            count,
        )
        return dict.fromkeys(left, f"the run ended before it was written, at write {number}: {complaint}")

    def _write_batch(self, batch: _Batch, watch: Watch | None, number: int) -> tuple[dict[int, str], str]:
        """Iterate one batch; the facts that failed before anything of them was written, and the guard's complaint."""
        failed: dict[int, str] = {}
        kept = len(self.writer.writes)
        complaint = ""
        for iteration in range(1, self.strategy.iterations + 1):
            began = time.perf_counter()
            if not self.strategy.keep_best:
                self.writer.settle()
            try:
                changes = self._changes(batch, iteration)
            except NoFactsLeft as error:
                failed |= self._without_values(batch, iteration, error)
                break
            if iteration == 1:
                failed |= {batch.index[place]: reason for place, reason in changes.failed.items()}
            self.writer.write(changes.deltas)
            complaint, health = self._health(watch, changes)
            if complaint:
                self.writer.take_back()
                break
            record: Record = {"write": len(self.history) + 1, "batch": number, "iteration": iteration}
            record |= self._measured(batch, changes) | health
            self.realized = {**changes.realized, **self.realized}
            record["seconds"] = round(time.perf_counter() - began, 3)
            if changes.failed:
                batch = batch.without(changes.failed)
            batch.records.append(record)
            batch.sums.append(changes.key_sums)
            self.history.append(record)
            if self.on_write is not None:
                self.on_write(len(self.history))
            if self._stops(batch.records):
                break
        best = self._choose(batch.records, kept)
        if best:
            self._remember(batch.sums[best - 1])
        self.writer.settle()
        return failed, complaint

    def _without_values(self, batch: _Batch, iteration: int, error: NoFactsLeft) -> dict[int, str]:
        """No fact of the batch has a value: they are left out, unless an earlier iteration has written them."""
        if iteration == 1:
            return dict.fromkeys(batch.index, NOT_FINITE)
        logger.warning(
            "Iteration %d found nothing to write, and the iterations end there: %s", iteration, error
        )
        return {}

    def _changes(self, batch: _Batch, iteration: int) -> Changes:
        run = self.run
        if len(batch.facts) == 1:
            run = replace(run, on_progress=silent)
        elif self.strategy.iterations > 1:
            run = replace(run, on_progress=_named(run.on_progress, f", iteration {iteration}"))
        return run.changes(batch.facts, batch.known, self.earlier, self.writer.since)

    def _measured(self, batch: _Batch, changes: Changes) -> Record:
        """The p's of an iteration, its norms, and which values stay as they are in the next one."""
        each = norms(changes.deltas)
        alive = [place for place in range(len(batch.facts)) if place not in changes.failed]
        record: Record = {
            "facts": len(alive),
            "optimised": len(alive) - len(batch.known),
            "update_norm": root_of_squares(each),
            "update_norms": each,
        }
        if not changes.outcomes:
            return record
        now = measure_targets(self.run.model, batch.facts, self.run.contexts)
        optimised = _perplexity([_mean(changes.outcomes[place].trace.nll_each[-1]) for place in alive])
        spread = _perplexity([float(now.nll[place]) for place in alive])
        record |= {"p_optimised": optimised, "p_spread": spread, "delta_p": spread - optimised}
        record["underedited"] = sum(not bool(now.on_top[place]) for place in alive)
        if self.strategy.only_underedited:
            batch.known = {place: changes.outcomes[place] for place in alive if bool(now.on_top[place])}
        return record

    def _health(self, watch: Watch | None, changes: Changes) -> tuple[str, Record]:
        """What is wrong with the weights as they stand, and what the guard measured."""
        broken = self.writer.broken(changes.deltas)
        if broken:
            return f"it made {broken} infinite or not a number", {}
        if watch is None:
            return "", {}
        now = watch.measure()
        record: Record = {"perplexity": now.perplexity, "neighbor_accuracy": now.accuracy}
        return watch.complaint(now), record

    def _stops(self, records: Sequence[Record]) -> bool:
        """Whether the stop rule ends the iterations after the last record."""
        if "delta_p" not in records[-1] or self.strategy.stop == "never":
            return False
        last = records[-1]
        if self.strategy.stop == "delta_p":
            return abs(_number(last, "delta_p")) <= self.strategy.epsilon
        if len(records) < 2:
            return False
        before = records[-2]
        if self.strategy.stop == "monotonic":
            return abs(_number(last, "delta_p")) >= abs(_number(before, "delta_p"))
        return abs(_number(last, "p_spread") - _number(before, "p_spread")) <= self.strategy.epsilon

    def _choose(self, records: Sequence[Record], kept: int) -> int:
        """Take back the iterations that are not to stay, and say how many do; `kept` writes came before the batch."""
        best = len(records)
        if self.strategy.stop == "monotonic" and len(records) > 1 and self._stops(records):
            best = len(records) - 1
        if self.strategy.keep_best and best and "p_spread" in records[0]:
            best = min(range(1, best + 1), key=lambda count: _number(records[count - 1], "p_spread"))
        for record in records:
            record["kept"] = int(_number(record, "iteration")) <= best
        self.writer.take_back(len(self.writer.writes) - kept - best)
        return best

    def _remember(self, sums: Mapping[str, Tensor]) -> None:
        """Add a batch's keys to those of earlier ones, where the method wants them."""
        for path, added in sums.items():
            self.earlier[path] = self.earlier[path] + added if path in self.earlier else added


def _named(on_progress: Progress, more: str) -> Progress:
    return lambda stage, done, total: on_progress(f"{stage}{more}", done, total)


def _number(record: Record, name: str) -> float:
    value = record[name]
    assert isinstance(value, int | float)
    return float(value)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _perplexity(nll: Sequence[float]) -> float:
    """(1/m) sum exp(NLL_i), kept finite so that it can be stored: what is not a number counts as the largest."""
    return _mean([math.exp(value if value < MOST_NLL else MOST_NLL) for value in nll])
