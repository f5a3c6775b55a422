"""The stages that are measured: the shipped path, the published way of working, what both must agree on, the floor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import floor
import published
import torch
from floor import Size, Work
from jaxtyping import Float
from shapes import Bench
from torch import Tensor

import errata
from errata.edits import Delta, Edit
from errata.evaluation import Edited, make_plan, sheets
from errata.facts import Fact
from errata.moments import Limits, Sums, measure, write_moment
from errata.passes import encode_rows, encode_text
from errata.results import Record, Results
from errata.settings import flatten
from errata.solve import KeyPrompts, Write, least_squares, spread
from errata.values import Targets, optimize_targets, place_path, rows_for

TOLERANCE = {"float64": 1e-8, "float32": 1e-3}
"""The largest difference between the two programs, relative to the size of what is compared."""


@dataclass(frozen=True)
class Stage:
    """One stage of one bench, ready to be run either way."""

    unit: str
    """What the times are given for."""
    units: float
    published_units: float
    shipped: Callable[[], Any]
    published: Callable[[], Any]
    difference: Callable[[Any, Any], float]
    """Between what both gave, relative to its size."""
    work: Callable[[Any], Work]
    """What the algorithm needed for what the shipped path gave."""


def make_stage(
    name: str, bench: Bench, texts: Sequence[str], folder: Path, published_facts: int = 0
) -> Stage:
    """The stage of that name; the published way gets the first `published_facts` facts only (0: all of them).

    `folder` is for what lies on disk while the stage is run.
    """
    few = bench.facts[:published_facts] if published_facts else bench.facts
    makers: dict[str, Callable[[], Stage]] = {
        "optimization": partial(_optimization, bench, few),
        "spread": partial(_spread, bench),
        "covariance": partial(_covariance, bench, texts),
        "evaluation": partial(_evaluation, bench, few),
        "edit": partial(_edit, bench, folder),
    }
    return makers[name]()


STAGES = ("optimization", "spread", "covariance", "evaluation", "edit")


# --- optimization ----------------------------------------------------------------------------------


def _optimization(bench: Bench, few: Sequence[Fact]) -> Stage:
    model, settings = bench.model, bench.settings

    def shipped() -> Targets:
        return optimize_targets(model, bench.facts, bench.contexts, settings, relax=bench.relax)

    def plain() -> list[published.Values]:
        return [published.optimize(model, fact, bench.contexts, settings, bench.relax) for fact in few]

    def difference(ours: Targets, theirs: Sequence[published.Values]) -> float:
        return max(
            relative(ours.value(place)[number], one.value(place).cpu())
            for number, one in enumerate(theirs)
            for place in settings.values.optimize
        )

    def work(ours: Targets) -> Work:
        return optimization_work(bench, ours)

    return Stage("fact", len(bench.facts), len(few), shipped, plain, difference, work)


def optimization_work(bench: Bench, targets: Targets) -> Work:
    """What the passes of all facts needed, as many as each fact made."""
    size, total = Size.of(bench.model), Work()
    for fact, trace in zip(bench.facts, targets.traces, strict=True):
        rows = encode_rows(bench.model, rows_for([fact], bench.contexts, bench.settings.values))
        total += floor.optimization(size, rows, bench.layers[-1], len(trace.loss))
    return total


# --- spread ----------------------------------------------------------------------------------------


def _spread(bench: Bench) -> Stage:
    model, settings = bench.model, bench.settings
    inputs = SpreadInputs(bench)
    path = place_path(model, bench.place, bench.layers[-1])

    def shipped() -> dict[str, Delta]:
        prompts = KeyPrompts.of(model, bench.facts, bench.contexts)
        solver = least_squares(lambda site: inputs.moment, settings.solve.covariance_weight)
        writes = [Write("ffn", path, inputs.values)]
        return spread(model, settings, writes, prompts, solver)

    def plain() -> dict[int, Tensor]:
        return published.spread(
            model, bench.facts, bench.contexts, inputs.values, lambda layer: inputs.moment, settings
        )

    def difference(ours: dict[str, Delta], theirs: dict[int, Tensor]) -> float:
        return max(
            relative(ours[model.site("ffn", layer).path].matrix.double(), delta)
            for layer, delta in theirs.items()
        )

    def work(ours: object) -> Work:
        return spread_work(bench)

    layers = len(bench.layers)
    return Stage("layer", layers, layers, shipped, plain, difference, work)


@dataclass(frozen=True)
class SpreadInputs:
    """Values that are near the clean ones, and second moments of the right size: what they are changes no time."""

    bench: Bench

    @cached_property
    def values(self) -> Float[Tensor, "fact d_model"]:
        """v* of m^L: the clean value and a change of the same size."""
        model, bench = self.bench.model, self.bench
        prompts = KeyPrompts.of(model, bench.facts, bench.contexts[:1])
        clean = prompts.values(place_path(model, bench.place, bench.layers[-1]))
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return clean + 0.5 * noise.to(clean) * clean.norm(dim=1, keepdim=True) / clean.shape[1] ** 0.5

    @cached_property
    def moment(self) -> Float[Tensor, "d_in d_in"]:
        """A positive definite matrix, as large on average as the facts' own k k^T."""
        model, bench = self.bench.model, self.bench
        site = model.site("ffn", bench.layers[0])
        torch.manual_seed(4)
        sample = torch.randn(2 * site.d_in, site.d_in, device=site.weight.device)
        keys = KeyPrompts.of(model, bench.facts[:8], bench.contexts[:1]).keys(site, "half")
        return (sample.T @ sample).double() / len(sample) * float(keys.pow(2).mean())


def spread_work(bench: Bench) -> Work:
    """What the keys, values and solves of all layers need."""
    prompts = KeyPrompts.of(bench.model, bench.facts, bench.contexts)
    return floor.spread(Size.of(bench.model), prompts, bench.layers, len(bench.facts))


# --- covariance ------------------------------------------------------------------------------------


def _covariance(bench: Bench, texts: Sequence[str], whole: bool = False) -> Stage:
    model = bench.model
    sites = [model.site("ffn", layer) for layer in bench.layers]
    limit = min(1024, model.max_length)
    lengths = [min(limit, len(row)) for row in model.tokenizer(list(texts))["input_ids"]]

    def shipped() -> Sums:
        return measure(model, sites, texts, Limits(samples=len(texts), max_length=limit))

    def plain() -> dict[str, Tensor]:
        return {site.path: published.second_moment(model, site.layer, texts, limit, whole) for site in sites}

    def difference(ours: Sums, theirs: dict[str, Tensor]) -> float:
        return max(relative(ours.moment(path), moment) for path, moment in theirs.items())

    def work(ours: object) -> Work:
        return floor.covariance(Size.of(model), lengths, bench.layers)

    thousands = sum(lengths) / 1000
    return Stage("1000 tokens", thousands, thousands, shipped, plain, difference, work)


# --- evaluation ------------------------------------------------------------------------------------


def _evaluation(bench: Bench, few: Sequence[Fact]) -> Stage:
    model = bench.model
    asked = [
        [(ask.prompt, ask.answers) for asks in sheet.groups.values() for ask in asks]
        for sheet in sheets(few, Edited(few))
    ]

    def shipped() -> Results:
        return errata.evaluate(model, bench.facts, trustworthy=False)

    def plain() -> list[tuple[published.Likelihoods, list[int]]]:
        return [published.evaluate_fact(model, *one) for one in zip(few, asked, strict=True)]

    def difference(ours: Results, theirs: list[tuple[published.Likelihoods, list[int]]]) -> float:
        pairs = list(zip(ours.records, theirs, strict=False))
        likely = max(_log_p_difference(record.after.questions, found) for record, (found, _) in pairs)
        other = sum(not _same_text(record, written) for record, (_, written) in pairs)
        return max(likely, other / len(pairs))

    def work(ours: Results) -> Work:
        return evaluation_work(bench, ours)

    return Stage("fact", len(bench.facts), len(few), shipped, plain, difference, work)


def _log_p_difference(questions: Sequence[Any], likely: published.Likelihoods) -> float:
    answers = [(q.prompt, answer) for q in questions for answer in (q.wanted, q.rival) if answer is not None]
    return max(
        abs(one - other) / max(1.0, abs(other))
        for prompt, answer in answers
        if (prompt, answer.text) in likely
        for one, other in zip(answer.log_probabilities, likely[prompt, answer.text], strict=True)
    )


def _same_text(record: Record, written: Sequence[int]) -> bool:
    said = record.after.continuation
    return said is not None and said.tokens == tuple(written[: len(said.tokens)])


def evaluation_work(bench: Bench, results: Results) -> Work:
    """What the answers and continuations need that were measured."""
    model = bench.model
    asked = sheets(bench.facts, Edited(bench.facts))
    plan = make_plan(model, [pair for sheet in asked for pair in sheet.pairs])
    texts = [(reading.text.ids, reading.text.predicted_at) for reading in plan.readings]
    written = []
    for fact, record in zip(bench.facts, results.records, strict=True):
        said = record.after.continuation
        prompt = encode_text(model, fact.question, None).ids
        texts.append((prompt, range(len(prompt) - 1, len(prompt))))
        text = "" if said is None else said.text
        written.append((len(prompt), len(model.tokenizer(f" {text}")["input_ids"]) if text else 0))
    return floor.evaluation(Size.of(model), texts, written)


# --- edit ------------------------------------------------------------------------------------------


def _edit(bench: Bench, folder: Path) -> Stage:
    model, settings = bench.model, bench.settings
    inputs = SpreadInputs(bench)
    for layer in bench.layers:
        write_moment(folder, model, model.site("ffn", layer), inputs.moment, 100_000, {})
    values = flatten(settings)
    shapes: list[Targets] = []

    def shipped() -> Edit:
        return errata.edit(
            model, bench.facts, bench.method, values, contexts=bench.contexts, covariance=folder
        )

    def plain() -> dict[str, Tensor]:
        found = [
            published.optimize(model, fact, bench.contexts, settings, bench.relax) for fact in bench.facts
        ]
        wanted = torch.stack([one.value(bench.place) for one in found])
        deltas = published.spread(
            model, bench.facts, bench.contexts, wanted, lambda layer: inputs.moment, settings
        )
        return {model.site("ffn", layer).path: delta for layer, delta in deltas.items()}

    def difference(ours: Edit, theirs: dict[str, Tensor]) -> float:
        return max(relative(ours.deltas[path].matrix.double(), delta) for path, delta in theirs.items())

    def work(ours: object) -> Work:
        if not shapes:
            shapes.append(optimize_targets(model, bench.facts, bench.contexts, settings, relax=bench.relax))
        return optimization_work(bench, shapes[0]) + spread_work(bench)

    count = len(bench.facts)
    return Stage("fact", count, count, shipped, plain, difference, work)


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The norm of the difference over the norm."""
    ours, theirs = ours.double().cpu(), theirs.double().cpu()
    return float((ours - theirs).norm() / theirs.norm())


def with_facts(bench: Bench, count: int) -> Bench:
    """The same with the first facts only."""
    return replace(bench, facts=bench.facts[:count])
