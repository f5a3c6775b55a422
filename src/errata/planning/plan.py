"""The one door: a request is settled and checked by `prepare`, shown as a `Plan`, and run."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from errata.edits import Edit, Realized
from errata.errors import FactError
from errata.facts import Fact, contradictions
from errata.methods import EditSite, Method, Run, contexts_for, method_named, settings_for
from errata.models import EditableModel, Site
from errata.moments import CovarianceRecipe, Factors, default_recipe, ensure, missing_moments
from errata.passes import check_contexts, encode_rows, kl_rows, rewrite_rows
from errata.planning.beside import facts_beside, option_settings
from errata.planning.blocks import check_layers, check_maps
from errata.planning.checking import check_settings, checks_itself
from errata.planning.costs import Costs, Work
from errata.planning.neighbors import Neighbors, find_neighbors
from errata.planning.request import EditRequest, Words
from errata.runtime import Progress, processes, silent
from errata.settings import DEFAULT_METHOD, Preset, alternatives_to, build, dotted, flatten, load_presets
from errata.strategies import run_checked, run_steps

FEW = 32
"""Facts whose keys say what the weights of a plan amount to."""
AT_ONCE = 256
"""Facts whose texts are checked together."""


def edit(
    model: EditableModel,
    facts: Sequence[Fact],
    method: str = DEFAULT_METHOD,
    settings: Mapping[str, object] | None = None,
    *,
    on_progress: Progress = silent,
    **words: Unpack[Words],
) -> Edit:
    """Find the change of weights that makes the model say the facts; the model itself is left as it was.

    The same words as on the command line give the same edit: `settings` go over the preset, and every other field of
    `EditRequest` may be given by its name (`preset=`, `strategy=`, `contexts=`, `covariance=`, `neighbors=`,
    `preserve=`, `stack=`, `keep_in=`, `seed=` ...).

    Raises:
        UnknownSetting, SettingsError, LayerOutOfRange: a method, preset or setting that cannot be used.
        FactError: no facts, conflicting targets, nothing to preserve or no neighbors where they were asked for, or a
            prompt that does not fit the model.
        UnsupportedArchitecture: the method assumes what this family does not do.
        CovarianceError: the second moments are missing, damaged, or another model's.
        NoFactsLeft: the loss of every fact was not a number.
        Collapsed: the first write of a strategy broke a bound of its guard.
        WrongModel: the model is not the stack's.
    """
    request = EditRequest(facts, method, settings or {}, **words)
    return prepare(model, request).run(on_progress)


def prepare(model: EditableModel, request: EditRequest) -> "Plan":
    """Settle and check everything about a request that can be known without running the model.

    Raises:
        As `edit` does for its settings, facts, contexts, covariance folder and stack.
    """
    method = method_named(request.method)
    _check_facts(request)
    presets = load_presets(request.method).among(model.editable_layers)
    found = presets.for_model(model.name, model.layers, request.preset, lambda: model.fingerprint)
    over = {**dotted(request.settings), **option_settings(request, found.values)}
    settings, preset = settings_for(model, request.method, over, request.preset)
    check = checks_itself(request, preset)
    if check:
        over = {**check_settings(request, settings), **over}
        settings = build(method.settings, preset.values, over)
    check_layers(model, settings)
    method.check(model, settings)
    check_maps(model, method, settings)
    plan = Plan(
        model=model,
        request=request,
        method=method,
        settings=settings,
        preset=preset,
        overrides=over,
        check=check,
        facts=tuple(request.facts),
        contexts=None if request.contexts is None else check_contexts(request.contexts),
    )
    return plan if request.neighbors == "auto" else plan.with_rows_beside(plan.facts)


def _check_facts(request: EditRequest) -> None:
    """Raise where an edit would have nothing to write, or two different things at one place."""
    if not request.facts:
        raise FactError("There are no facts to write. Give at least one.")
    conflict = next(contradictions(request.facts), None)
    if conflict is not None:
        raise FactError(
            f"Two facts contradict each other: {conflict}. Keep one (`errata facts check FILE` finds them all)."
        )
    if request.stack is not None:
        request.stack.check_facts(request.facts)


@dataclass(frozen=True)
class SettingRow:
    """A setting of a plan."""

    name: str
    """Its path, such as `values.steps`."""
    value: Any
    source: str
    """Where the value comes from, in words."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An edit that is settled and checked, and not begun: nothing of the model has been run."""

    model: EditableModel
    request: EditRequest
    method: Method[Any]
    settings: Any
    preset: Preset
    overrides: Mapping[str, object]
    """The settings over the preset: the request's own, and those that its options stand for."""
    facts: tuple[Fact, ...]
    """With the rows beside them, once they are known."""
    contexts: tuple[str, ...] | None
    """None: sampled from the model when the plan runs."""
    notes: tuple[str, ...] = ()
    """What should be known before it runs, one sentence each."""
    check: bool = False
    """Whether the edit asks every fact after the write, and writes again what is missing."""

    def __post_init__(self) -> None:
        """Refuse a stack of another model, and a covariance folder that cannot be used."""
        if self.request.stack is not None:
            self.request.stack.check_model(self.model)
        if self.request.covariance is not None:
            self._check_moments(Path(self.request.covariance))

    @property
    def moment_sites(self) -> list[Site]:
        """The weights whose second moments are needed."""
        return list(self.method.moments(self.model, self.settings))

    @property
    def sites(self) -> tuple[EditSite, ...]:
        """The sites whose values are optimized."""
        return self.method.sites(self.settings)

    @property
    def layers(self) -> tuple[int, ...]:
        """All blocks that are written."""
        return tuple(self.method.layers(self.settings))

    def setting_rows(self) -> list[SettingRow]:
        """Each setting with its value and where it comes from, as declared; of alternatives the one that is set."""
        own, over = dotted(self.request.settings), self.overrides
        rows: list[SettingRow] = []
        values = flatten(self.settings)
        for name, value in values.items():
            if value is None and any(values.get(other) is not None for other in alternatives_to(name)):
                continue
            if name in own:
                source = "your settings"
            elif name in over:
                source = "an option (--neighbors, --preserve, --check)"
            elif name in self.preset.by_rule:
                source = "rule" if name.rpartition(".")[2] == "layers" else f"defaults of {self.method.name}"
            else:
                source = f"preset {self.preset.name}" if name in self.preset.values else "built-in default"
            rows.append(SettingRow(name, value, source))
        return rows

    @property
    def strategy_words(self) -> str:
        """How the method is repeated."""
        strategy = self.request.strategy
        if strategy is None:
            again = "; those that are not said after it once more (--check)" if self.check else ""
            return f"all facts in one write{again}"
        batches = f"batches of {strategy.batch_size}" if strategy.batch_size else "all facts at once"
        guard = ", with a guard" if strategy.guard else ""
        return f"{batches}, up to {strategy.iterations} iterations (stop rule {strategy.stop}){guard}"

    @property
    def contexts_words(self) -> str:
        """Where the contexts come from."""
        if self.contexts is not None:
            return f"{len(self.contexts)}, yours"
        return (
            f"{self.method.context_count}, sampled from the model with seed {self.request.seed} when it runs"
        )

    @property
    def moments_words(self) -> str:
        """Whether second moments are needed, and whether they are there."""
        sites = self.moment_sites
        if not sites:
            return "not needed"
        if self.request.covariance is not None:
            return f"of {len(sites)} weights, in {self.request.covariance}"
        missing = len(missing_moments(self.model, sites, self.recipe))
        recipe = self.recipe
        amount = f"up to {recipe.samples:,} texts" if recipe.tokens is None else f"{recipe.tokens:,} tokens"
        corpus = f"{recipe.corpus!r}, {amount}"
        if not missing:
            return f"of {len(sites)} weights, in the cache (measured on {corpus})"
        return f"of {missing} of {len(sites)} weights to be measured on {corpus}"

    def costs(self) -> Costs:
        """Rows per fact, memory and time, from shapes and one timed matrix product; the model is not run."""
        contexts = self.method.context_count if self.contexts is None else len(self.contexts)
        work = Work(self.model, self.method, self.settings, self.facts, contexts, self.request.strategy)
        return work.costs()

    def realized(self) -> dict[str, Realized]:
        """What the weight of each solve amounts to, by module path, from the keys of the first few facts.

        A short pass over their prompts, behind the request's own contexts or behind none. Empty where the method has no
        such weight, or second moments have still to be measured.

        Raises:
            CovarianceError: the second moments are damaged.
        """
        if self.request.covariance is not None:
            folder = Path(self.request.covariance)
        elif self.moment_sites and not missing_moments(self.model, self.moment_sites, self.recipe):
            folder = ensure(self.model, self.moment_sites, self.recipe)
        else:
            return {}
        return self._run(self.contexts or ("",), folder, silent).realized(self.facts[:FEW])

    def _run(self, contexts: tuple[str, ...], moments: Path | None, on_progress: Progress) -> Run:
        return Run(
            model=self.model,
            method=self.method,
            settings=self.settings,
            preset=self.preset,
            contexts=contexts,
            moments=moments,
            covariance=str(self.request.covariance or moments.name) if moments else "",
            seed=self.request.seed,
            keep_in=Path(self.request.keep_in) if self.request.keep_in else None,
            on_progress=on_progress,
        )

    def described(self, costs: Costs) -> dict[str, object]:
        """The plan for programs."""
        return {
            "model": self.model.name,
            "method": self.method.name,
            "facts": len(self.facts),
            "layers": list(self.layers),
            "preset": f"{self.preset.name} ({self.preset.source})",
            "strategy": self.strategy_words,
            "settings": {row.name: {"value": row.value, "from": row.source} for row in self.setting_rows()},
            "rows_per_fact": costs.rows,
            "contexts": self.contexts_words,
            "second_moments": self.moments_words,
            "memory_bytes": costs.memory.whole,
            "seconds": None if costs.seconds is None else round(costs.seconds, 1),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """The plan in lines of text."""
        about = self.described(self.costs())
        lines = [f"{name}: {value}" for name, value in about.items() if name not in ("settings", "notes")]
        lines += [f"  {row.name} = {row.value}  ({row.source})" for row in self.setting_rows()]
        return "\n".join([*lines, *self.notes])

    @property
    def recipe(self) -> CovarianceRecipe:
        """What second moments are measured on where no folder is given; for a published preset as its paper did."""
        published = load_presets(self.request.method).publishes(self.preset)
        return default_recipe(self.model, published, self.moment_sites)

    def with_rows_beside(self, facts: Sequence[Fact]) -> "Plan":
        """The plan for these facts, with other wordings and statements to preserve as the settings ask.

        Raises:
            FactError: somebody asked for such rows, and no fact has any.
        """
        beside = facts_beside(self.request, self.sites, self.overrides, facts)
        return replace(self, facts=beside.facts, notes=(*self.notes, *beside.notes))

    def settle(self, on_progress: Progress = silent) -> "Settled":
        """Compute what a run begins with: neighbors the model knows, contexts, second moments.

        Raises:
            FactError: no fact qualifies for neighbor-assisted editing, or a prompt does not fit the model.
            CovarianceError: second moments cannot be measured, or are damaged or another model's.
        """
        plan, neighbors = self._with_neighbors(on_progress)
        contexts = plan.contexts or contexts_for(plan.model, plan.method, plan.settings, plan.request.seed)
        contexts = tuple(processes.agreed(contexts))
        plan._check_rows(contexts)
        moments = plan._measured_moments(on_progress)
        return Settled(plan, plan._run(contexts, moments, on_progress), neighbors)

    def run(self, on_progress: Progress = silent, on_write: Callable[[int], None] | None = None) -> Edit:
        """Make the edit: one write, or all writes of the strategy. `on_write` is called after each of the latter.

        Raises:
            As `edit`.
        """
        return self.settle(on_progress).run(on_progress, on_write)

    def _with_neighbors(self, on_progress: Progress) -> "tuple[Plan, Neighbors | None]":
        if self.request.neighbors != "auto":
            return self, None
        neighbors = find_neighbors(
            self.model,
            self.facts,
            self.request.seed,
            max(site.values.neighbor_count for site in self.sites),
            self.request.keep_unqualified,
            on_progress,
        )
        neighbors.check()
        return self.with_rows_beside(neighbors.facts), neighbors

    def _check_rows(self, contexts: Sequence[str]) -> None:
        """Raise now where a text does not fit the model.

        Raises:
            FactError: naming the fact.
        """
        for start in range(0, len(self.facts), AT_ONCE):
            some = self.facts[start : start + AT_ONCE]
            encode_rows(self.model, [*rewrite_rows(some, contexts), *kl_rows(some)])
        for site in self.sites:
            encode_rows(self.model, site.keys.rows_beside(self.facts))

    def _measured_moments(self, on_progress: Progress) -> Path | None:
        """The folder of second moments, every one of them checked before hours are spent on values."""
        if not self.moment_sites:
            return None
        if self.request.covariance is not None:
            return Path(self.request.covariance)
        folder = ensure(self.model, self.moment_sites, self.recipe, on_progress)
        self._check_moments(folder)
        return folder

    def _check_moments(self, folder: Path) -> None:
        factors = Factors(folder, self.model)
        for site in self.moment_sites:
            factors.check(site)


@dataclass(frozen=True)
class Settled:
    """A plan with everything computed that its writes begin with."""

    plan: Plan
    stages: Run
    neighbors: Neighbors | None
    """What the model answered about neighbors, where it was asked."""

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What is written: facts that did not qualify are not among it."""
        return self.plan.facts

    def run(self, on_progress: Progress = silent, on_write: Callable[[int], None] | None = None) -> Edit:
        """Make the edit; the model is left as it was."""
        request, stages = self.plan.request, replace(self.stages, on_progress=on_progress)
        stack = request.stack
        if stack is None:
            return self._write(stages, on_write)
        stages = replace(stages, hold=request.hold and bool(stack.entries))
        with self._on_stack():
            made = self._write(stages, on_write)
        return replace(made, origin=replace(made.origin, fingerprint=stack.fingerprint))

    def _write(self, stages: Run, on_write: Callable[[int], None] | None) -> Edit:
        strategy = self.plan.request.strategy
        if self.plan.check:
            return run_checked(stages, self.facts)
        if strategy is None:
            return stages.as_edit(self.facts, stages.changes(self.facts))
        return run_steps(stages, self.facts, strategy, on_write)

    def _on_stack(self) -> AbstractContextManager[object]:
        stack = self.plan.request.stack
        return nullcontext() if stack is None else stack.applied(self.plan.model)
