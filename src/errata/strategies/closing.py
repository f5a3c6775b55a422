"""An edit that looks at itself: every fact is asked after the write, and what is missing is written again.

1. One write, as of every edit.
2. Every fact is asked: is every token of its target the likeliest one, bare and behind every context?
3. Facts that are not carried are solved for again with their values as they are and a share of the residual raised
   towards 1, the keys of the others held (K_p); then once more from new values. A write that helps no fact, or that
   costs the model more than `BOUNDS` allow (perplexity, and neighbors that it knew), is taken back.
4. What still does not hold is reported with the reason.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from errata.edits import Edit, FactCheck, SettingValue
from errata.errors import NoFactsLeft
from errata.evaluation import Pair, make_plan, measure
from errata.facts import Fact
from errata.methods import Changes, Run, SharedSite, written_sites
from errata.settings import build, flatten
from errata.solve import KeyPrompts, key_sum
from errata.strategies.guard import Guard, Watch
from errata.strategies.writing import Writer, norms, root_of_squares
from errata.values import Outcome, TargetMeasure, measure_targets, place_path

ROUNDS = 2
BOUNDS = Guard(max_perplexity_ratio=1.1, min_accuracy_ratio=0.9)
"""How much the model may lose by all writes together for a further one to stay."""
RAISED = 4.0
"""By what lambda is divided in a further write; the odds of a share are multiplied with it."""
REALIZED = 0.9
"""From here on a value counts as realized."""

Record = dict[str, SettingValue]


def run_checked(run: Run, facts: Sequence[Fact]) -> Edit:
    """One write, and as many further ones as the facts need and the model allows; the model is left as it was.

    With no further write, the changes are those of the plain edit to the last bit.

    Raises:
        NoFactsLeft: no fact could be written.
    """
    closing = _Closing(run, list(facts), Writer(run.model))
    with closing.writer.put_back():
        closing.write_first()
        closing.close()
        checks = closing.checks()
    further = closing.history[1:]
    single = closing.first.deltas if len(closing.writer.writes) == 1 else closing.writer.total()
    changes = Changes(single, closing.first.failed, realized=closing.first.realized)
    kept = sum(bool(record["kept"]) for record in further)
    strategy: Record = {"check": True, "further_writes": kept, "ended_by": closing.ended_by}
    edit = run.as_edit(
        facts,
        changes,
        strategy if further or closing.ended_by else None,
        closing.history if further else (),
    )
    return replace(edit, checks=checks)


@dataclass
class _Closing:
    """One run of it."""

    run: Run
    facts: list[Fact]
    writer: Writer
    first: Changes = field(default_factory=lambda: Changes({}))
    written: list[int] = field(default_factory=list[int])
    """The facts that have a value."""
    state: TargetMeasure | None = None
    """What the model says to them now."""
    history: list[Record] = field(default_factory=list[Record])
    ended_by: str | None = None

    def write_first(self) -> None:
        """The write of the plain edit."""
        began = time.perf_counter()
        self.first = self.run.changes(self.facts, since=self.writer.since)
        self.written = [index for index in range(len(self.facts)) if index not in self.first.failed]
        self.writer.write(self.first.deltas)
        self.state = self._ask()
        self._record(1, self.written, self.first, began)

    def close(self) -> None:
        """Write what is missing again, while that helps."""
        watch: Watch | None = None
        for number in range(1, ROUNDS + 1):
            missing = self._missing()
            if not missing or self.writer.broken(self.first.deltas):
                return
            if watch is None:
                with self.run.model.ledger.unedited(self.writer.since):
                    watch = Watch(BOUNDS, self.run.model, self.facts, self.run.seed)
                if complaint := watch.complaint(watch.measure()):
                    self.ended_by = f"no further write: after the first, {complaint}"
                    return
            began = time.perf_counter()
            try:
                changes = self._again(missing, number)
            except NoFactsLeft as error:
                self.ended_by = f"no further write: {error}"
                return
            complaint = self._write(changes, watch)
            self._record(number + 1, missing, changes, began, complaint)
            if complaint:
                self.ended_by = f"further write {number} was taken back: {complaint}"

    def _write(self, changes: Changes, watch: Watch) -> str:
        """Write and ask again; why it was taken back, or "" where it stays."""
        before = self.state
        assert before is not None
        self.writer.write(changes.deltas)
        broken = self.writer.broken(changes.deltas)
        complaint = (
            f"it made {broken} infinite or not a number" if broken else watch.complaint(watch.measure())
        )
        if not complaint:
            self.state = self._ask()
            if int(self.state.on_top.sum()) > int(before.on_top.sum()):
                return ""
            complaint = "it brought about no further fact"
        self.writer.take_back()
        self.state = before
        return complaint

    def _again(self, missing: Sequence[int], number: int) -> Changes:
        """The changes for the missing facts: first from the values that they have, then from new ones."""
        run = replace(self.run, settings=raised(self.run.method.settings, self.run.settings), hold=True)
        some = [self.facts[index] for index in missing]
        known: dict[int, Outcome] = {}
        if number == 1 and self._keeps_values():
            known = {place: self.first.outcomes[index] for place, index in enumerate(missing)}
        others = [self.facts[index] for index in self.written if index not in set(missing)]
        return run.changes(some, known, self._held(others), self.writer.since)

    def _keeps_values(self) -> bool:
        """Whether a write can begin with the first one's values: not of facts that are written one by one, or twice."""
        method = self.run.method
        return method.order == "batch" and len(method.sites(self.run.settings)) == 1

    def _held(self, facts: Sequence[Fact]) -> dict[str, Tensor]:
        """K_p K_p^T of the facts that are carried, for the methods that can hold keys."""
        run, sums = self.run, dict[str, Tensor]()
        if not facts or run.method.earlier_keys == "never":
            return sums
        for own in run.method.sites(run.settings):
            if not isinstance(own, SharedSite):
                continue
            for site in written_sites(run.model, own):
                sums[site.path] = key_sum(run.model, site, facts, run.contexts, own.lookup, own.keys)
        return sums

    def _missing(self) -> list[int]:
        assert self.state is not None
        return [index for place, index in enumerate(self.written) if not bool(self.state.on_top[place])]

    def _ask(self) -> TargetMeasure:
        return measure_targets(
            self.run.model, [self.facts[index] for index in self.written], self.run.contexts
        )

    def _record(
        self, write: int, asked: Sequence[int], changes: Changes, began: float, complaint: str = ""
    ) -> None:
        assert self.state is not None
        each = norms(changes.deltas)
        record: Record = {
            "write": write,
            "facts": len(asked),
            "underedited": int((~self.state.on_top).sum()),
            "update_norm": root_of_squares(each),
            "seconds": round(time.perf_counter() - began, 3),
            "kept": not complaint,
        }
        self.history.append(record)

    def checks(self) -> tuple[FactCheck, ...]:
        """Every fact that was written, as the model stands now."""
        assert self.state is not None
        facts = [self.facts[index] for index in self.written]
        bare = cast("list[bool]", measure_targets(self.run.model, facts, ("",)).on_top.tolist())
        reached = self._reached()
        found: list[FactCheck] = []
        for place, fact in enumerate(facts):
            one = FactCheck(
                question=fact.question,
                target=fact.target_new,
                said=bare[place],
                behind_contexts=bool(self.state.on_top[place]),
                probability=math.exp(-float(self.state.nll[place])),
                realized=reached[place],
            )
            found.append(one if one.holds else replace(one, reason=self._reason(one, fact)))
        return tuple(found)

    def _reason(self, one: FactCheck, fact: Fact) -> str:
        other = self._said_instead(fact)
        if not one.said and other is not None:
            return f"contradicted by another fact: the model says {other.target_new!r}, as after {other.question!r}"
        behind = "" if not one.said else "said after its own prompt, not behind every context; "
        if one.realized is None:
            return f"{behind}its probability comes to {one.probability:.2g}"
        share = f"{100 * one.realized:.0f} % of the change that its value asks for is in the weights"
        if one.realized < REALIZED:
            return f"{behind}not realized: {share}"
        return f"{behind}{share}, and that is not enough"

    def _said_instead(self, fact: Fact) -> Fact | None:
        """Another fact about the subject, or of the same wording, whose target the model says here."""
        near = [
            one
            for one in self.facts
            if one is not fact
            and (one.subject == fact.subject or one.prompt == fact.prompt)
            and one.target_new != fact.target_new
        ]
        if not near:
            return None
        pairs = [Pair(fact.question, one.target_new, "check", fact.join) for one in near]
        answers = measure(self.run.model, make_plan(self.run.model, pairs))
        said = [answers[pair.key].correct for pair in pairs]
        return next((one for one, right in zip(near, said, strict=True) if right), None)

    def _reached(self) -> list[float | None]:
        """The part of delta that stands at the last site's value position now, measured along delta."""
        run, outcomes = self.run, self.first.outcomes
        if not outcomes:
            return [None] * len(self.written)
        own = run.method.sites(run.settings)[-1]
        place = own.values.optimize[-1]
        facts = [self.facts[index] for index in self.written]
        path = place_path(run.model, place, own.layers[-1])
        now = KeyPrompts.of(run.model, facts, ("",), own.lookup).values(path).cpu()
        reached: list[float | None] = []
        for row, index in enumerate(self.written):
            delta, initial = (
                getattr(outcomes[index], name)[place].cpu().to(now) for name in ("delta", "initial")
            )
            square = float(delta.square().sum())
            reached.append(float(torch.dot(now[row] - initial, delta)) / square if square > 0 else None)
        return reached


def raised(kind: type[Any], settings: Any) -> Any:
    """The settings with a lambda, or a ridge, that is `RAISED` times smaller at every site."""
    values = flatten(settings)
    for name, value in values.items():
        if value is None:
            continue
        if name.endswith("solve.realised_share"):
            odds = RAISED * value / (1 - value)
            values[name] = odds / (1 + odds)
        elif name.endswith(("solve.covariance_weight", "solve.ridge")):
            values[name] = value / RAISED
    return build(kind, values)
