"""What every method is given, and what it hands back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from errata.edits import Delta, Realized
from errata.errors import NoFactsLeft, SettingsError, UnsupportedArchitecture
from errata.facts import Fact
from errata.models import EditableModel, Site
from errata.passes import Lookup, sample_contexts
from errata.runtime import Progress
from errata.settings import about
from errata.solve import (
    KeyPrompts,
    KeySettings,
    LeastSquares,
    LeastSquaresSettings,
    LowerFactor,
    SiteKind,
    Solver,
    SpreadSettings,
    SpreadSite,
    Write,
    earlier_key_sum,
    no_factor,
    spread,
)
from errata.values import (
    NOT_FOUND,
    Outcome,
    Place,
    Targets,
    TargetStore,
    ValueSettings,
    ValueSite,
    optimize_targets,
    place_path,
)

BLOCK: tuple[Place, ...] = ("block",)
FFN: tuple[Place, ...] = ("ffn",)
"""Where MEMIT's value stands: in the residual stream; and where the FFN's output is normalized before it joins that, at
the down projection's own output."""
LAYERS = "The blocks that are written, ascending; values stand in the last one."
LOOKUP = "The token at which values stand and keys are read: the subject's last, or the prompt's last."
"""What every site's `layers` and `lookup` are."""


@dataclass(frozen=True, kw_only=True)
class SiteSettings:
    """One site of a method that optimizes values and writes them by least squares: all settings of PMET and MEMIT."""

    layers: tuple[int, ...] = field(metadata=about(LAYERS))
    lookup: Lookup = field(default="subject_last", metadata=about(LOOKUP))
    values: ValueSettings
    keys: KeySettings
    spread: SpreadSettings
    solve: LeastSquaresSettings

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_layers(self.layers)


def check_layers(layers: Sequence[int]) -> None:
    """Raise unless these are different blocks from below.

    Raises:
        SettingsError: there is none, or they are not in ascending order.
    """
    if not layers or list(layers) != sorted(set(layers)):
        raise SettingsError(
            f"Setting 'layers' must be one or more different blocks in ascending order: {tuple(layers)}."
        )


@runtime_checkable
class EditSite(ValueSite, Protocol):
    """A site at which values are optimized and keys are read, whatever is made of them."""

    @property
    def keys(self) -> KeySettings:
        """How the facts' keys are read, and which are preserved."""
        ...


@runtime_checkable
class SharedSite(EditSite, SpreadSite, Protocol):
    """The same of a site whose residual is shared out over its layers, whatever the solver."""


S = TypeVar("S")
"""The settings of a method: a frozen dataclass, in which the stages have their own (`SiteSettings`)."""


@dataclass(frozen=True)
class Task:
    """One request for an edit: facts to write into a model, and what the stages share."""

    model: EditableModel
    facts: Sequence[Fact]
    contexts: tuple[str, ...]
    covariance: Callable[[Site], Float[Tensor, "d_in d_in"]]
    """E[k k^T] of a site, in float64, of the unedited model."""
    on_progress: Progress
    seed: int = 0
    keep_in: Path | None = None
    """A folder for what is finished, so that a run that was killed goes on."""
    known: Mapping[int, Outcome] = field(default_factory=dict[int, Outcome])
    """Values that are not to be optimised again, by the fact's index: they enter K and R as they are."""
    earlier: Mapping[str, Float[Tensor, "d_in d_in"]] = field(default_factory=dict[str, Tensor])
    """The sum of k k^T over the facts of earlier edits, by module path."""
    lower: LowerFactor = no_factor
    """The Cholesky factor of E[k k^T] and a ridge, where it is kept."""
    hold: bool = False
    """Whether keys of earlier edits enter K K^T: of `earlier`, and of the edits in the model."""
    since: int = 0
    """The mark of the model's ledger from before the first write of the method, or of the strategy that runs it."""

    def unedited(self) -> AbstractContextManager[None]:
        """Inside, the weights are those from before that first write."""
        return self.model.ledger.unedited(self.since)

    def optimize(self, site: ValueSite, relax: bool = False) -> Targets:
        """The values of all facts at a site; `relax` says whether PMET's rule for phi is in force.

        Raises:
            OutOfMemory: memory does not suffice for a single fact.
        """
        return optimize_targets(
            self.model,
            self.facts,
            self.contexts,
            site,
            relax=relax,
            keeper=self.keeper(site, relax),
            on_progress=self.on_progress,
            known=self.known,
            unedited=self.unedited,
        )

    def keeper(self, site: ValueSite, relax: bool = False) -> TargetStore | None:
        """The keeper of finished values; `relax` says whether PMET's rule for phi is in force."""
        if self.keep_in is None:
            return None
        return TargetStore.of(self.keep_in, self.model, self.contexts, site, relax)


@dataclass(frozen=True)
class Changes:
    """What a method found: the change of each weight, and the facts that it had to leave out."""

    deltas: dict[str, Delta]
    failed: dict[int, str] = field(default_factory=dict[int, str])
    """Why, by the fact's index."""
    outcomes: tuple[Outcome, ...] = ()
    """The values that were found, one a fact; empty where the method has none."""
    key_sums: dict[str, Float[Tensor, "d_in d_in"]] = field(default_factory=dict[str, Tensor])
    """The sum of k k^T over the facts, by module path, where the method wants it for later edits (`Task.earlier`)."""
    realized: dict[str, Realized] = field(default_factory=dict[str, Realized])
    """What the weight of each solve amounts to, by module path; nothing where the method solves without one."""


def own_layers(settings: Any) -> tuple[int, ...]:
    """The `layers` of settings that have them."""
    return settings.layers


def no_sites(settings: object) -> tuple[EditSite, ...]:
    """Of a method that optimizes no values."""
    del settings
    return ()


@dataclass(frozen=True, kw_only=True)
class Method(Generic[S]):
    """A row of the registry."""

    name: str
    summary: str
    source: str
    writes: str
    """Which weights are changed, in words."""
    order: Literal["batch", "sequence"]
    """Whether all facts are written at once, or one after the other."""
    cost: str
    """What one fact costs, in words."""
    settings: type[S]
    check: Callable[[EditableModel, S], None]
    """Raise where these settings or this model cannot be run, before anything is computed."""
    run: Callable[[Task, S], Changes]
    moments: Callable[[EditableModel, S], Sequence[Site]]
    """The sites whose second moments the method needs."""
    layers: Callable[[S], tuple[int, ...]] = own_layers
    """All blocks that are written."""
    sites: Callable[[S], tuple[EditSite, ...]] = no_sites
    """The sites whose values are optimized, in the order in which they are written."""
    solver: Callable[[Task, Any], Solver] | None = None
    """Of one of those sites, where its weight can be measured from the facts' keys alone."""
    contexts: Callable[[EditableModel, int], tuple[str, ...]] = sample_contexts
    """The prefixes where the user gives none, from a seed."""
    context_count: int = 6
    """How many prefixes those are, the empty one included."""
    earlier_keys: Literal["never", "on request", "always"] = "never"
    """Whether the keys of earlier edits enter K K^T when an edit is made on top of them."""

    @property
    def optimizes_values(self) -> bool:
        """Whether the method has an Optimization stage, so that it can be iterated and take neighbors."""
        return self.sites is not no_sites


def contexts_for(model: EditableModel, method: Method[Any], settings: Any, seed: int) -> tuple[str, ...]:
    """The contexts of a run to which nobody gives any: the method's own, or longer ones where its sites ask for them.

    Longer ones stand for the sentences that facts are asked behind (decision 0018).
    """
    given = [site.values.context_tokens for site in method.sites(settings)]
    lengths = [tokens for tokens in given if tokens is not None]
    if not lengths:
        return method.contexts(model, seed)
    return sample_contexts(model, seed, ((max(lengths), 1),))


def wordings_of(sites: Iterable[EditSite]) -> int:
    """How many edit_prompts of a fact some site uses."""
    return max((site.keys.templates for site in sites), default=0)


def preserves_subjects(sites: Iterable[EditSite]) -> bool:
    """Whether a fact's preserve_prompts are used: in the loss of a value, or as keys."""
    return any(site.values.preserves or site.keys.keeps_subjects for site in sites)


def written_sites(model: EditableModel, site: SharedSite) -> list[Site]:
    """The maps that are written: each needs its second moments."""
    return [model.site(kind, layer) for kind in site.spread.write for layer in site.layers]


def write_targets(
    task: Task, targets: Targets, site: SiteSettings, place_of: Callable[[SiteKind], str]
) -> Changes:
    """Spread the values of all facts that have one; `place_of` says whose value brings about the change of a kind.

    Raises:
        NoFactsLeft: no fact has a value.
        CovarianceError: the second moments cannot be solved with.
    """
    return share_out(task, targets, site, place_of, site_solver(task, site))


def site_solver(task: Task, site: SiteSettings) -> Solver:
    """R K^T (lambda E[k k^T] + K_p K_p^T + K K^T)^-1; MEMIT's eq. 14, with the keys K_p where the task holds them.

    The ridge stays a share of E[k k^T] alone: with the earlier keys in it, it would grow from edit to edit. So does a
    lambda that is chosen by its share.
    """

    def earlier(written: Site) -> Float[Tensor, "d_in d_in"]:
        return earlier_key_sum(task.model, written, site.lookup, site.keys, task.earlier)

    return LeastSquares(
        covariance=task.covariance,
        weight=site.solve.covariance_weight,
        ridge=site.solve.covariance_ridge,
        lower=task.lower,
        share=site.solve.realised_share,
        earlier=earlier if task.hold else None,
    )


def share_out(
    task: Task, targets: Targets, site: SharedSite, place_of: Callable[[SiteKind], str], solver: Solver
) -> Changes:
    """`write_targets` for a method with a solver of its own."""
    kept = values_left(targets)
    chosen = torch.tensor(kept)
    writes = [
        Write(kind, place_path(task.model, place, site.layers[-1]), targets.value(place)[chosen])
        for kind in site.spread.write
        for place in site.values.optimize
        if place == place_of(kind)
    ]
    facts = [task.facts[index] for index in kept]
    prompts = KeyPrompts.of(task.model, facts, task.contexts, site.lookup, site.keys.templates)
    preserved = site.keys.kept(facts)
    found: dict[str, Realized] = {}
    deltas = spread(
        task.model,
        site,
        writes,
        prompts,
        solver,
        on_progress=task.on_progress,
        realized=found,
        preserved=KeyPrompts.of(task.model, preserved, ("",), site.lookup) if preserved else None,
    )
    return Changes(deltas, targets.reasons, targets.outcomes, realized=found)


def values_left(targets: Targets) -> list[int]:
    """The facts that have a value.

    Raises:
        NoFactsLeft: there is none.
    """
    if not targets.written and any(why.startswith(NOT_FOUND) for why in targets.reasons.values()):
        raise NoFactsLeft(
            f"No fact can be written: {NOT_FOUND}, of none of the {len(targets.failed)}. A larger values.clamp or more "
            "values.steps may find one; values.least_probability says what is asked."
        )
    if not targets.written:
        raise NoFactsLeft(
            "The loss of every fact was not a number. Is the model's precision too low, or is it damaged?"
        )
    return targets.written


def check_places(
    values: ValueSettings, optimize: Sequence[str], needed: Sequence[str], method: str, path: str = ""
) -> None:
    """Raise unless only the places in `optimize` are optimized, and all in `needed` are; `path` is the site's.

    Raises:
        SettingsError: naming the setting and what the method allows.
    """
    wrong = [place for place in values.optimize if place not in optimize]
    missing = [place for place in needed if place not in values.optimize]
    if wrong or missing:
        raise SettingsError(
            f"Setting '{path}values.optimize' is {list(values.optimize)}; {method} takes places of {list(optimize)}, "
            f"and has to optimize {list(needed)} to write them."
        )


def check_block_value(model: EditableModel, site: SharedSite, method: str, path: str = "") -> None:
    """Raise unless the value stands where the down projections that are written add to it as they are.

    That is the block's output, or the FFN's own (`FFN`).

    Raises:
        SettingsError: another place than one of these, or another weight than the FFN's.
        UnsupportedArchitecture: the value is the block's output, and the family normalizes after the FFN.
    """
    if site.values.optimize != FFN:
        check_places(site.values, optimize=BLOCK, needed=BLOCK, method=method, path=path)
    if site.spread.write != ("ffn",):
        raise SettingsError(
            f"Setting '{path}spread.write' is {list(site.spread.write)}; {method} writes ['ffn'] only."
        )
    if site.values.optimize == BLOCK and any(model.ffn_factor(layer) is None for layer in site.layers):
        raise UnsupportedArchitecture(
            f"{model.name} is of family {model.architecture.model_type}, which normalizes after the FFN: a change of "
            f"the down projection does not add to the block's output. Leave '{path}values.optimize' out, or set it to "
            "ffn: the value then stands at the down projection's own output."
        )
