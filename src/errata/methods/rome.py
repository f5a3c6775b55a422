"""ROME (Meng et al., NeurIPS 2022): one fact at a time, an update of rank one that makes one FFN say v* exactly.

    u = C^-1 k / |C^-1 k|        Delta = (v* - m) u^T / (u . k')        v* = m^l + delta, the FFN's output at its layer

k is the key of u, k' the one that is divided by, m what the map puts out for k'. The published program takes k from
the mean over the contexts and k' and m from the bare prompt. Then u . k' is now and then close to zero, and the
update huge: such "disabling edits" are what lets a sequence of edits collapse (Gupta et al., Rebuilding ROME, EMNLP
2024). Setting `solve.key`:

    "mean"        the published program: k the mean over the contexts, k' and m of the bare prompt
    "bare"        the bare prompt's key in both places ("p-ROME" there)
    "consistent"  the mean key in both places, and m the mean of the outputs ("r-ROME" there)

With the settings in `keys`, k (and with it a consistent k') is also the mean over other wordings, and the
keys p_j that are preserved enter C: C + w sum_j p_j p_j^T.

With the same key in both places u . k' = |C^-1/2 k|^2 / |C^-1 k| is positive, and Delta is the smallest change, in the
norm that C gives, that maps k to v*.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from errata.edits import Delta, write_deltas
from errata.errors import CovarianceError, NoFactsLeft, SettingsError
from errata.facts import Fact
from errata.methods.base import (
    LOOKUP,
    Changes,
    Method,
    Task,
    check_layers,
    check_places,
    values_left,
)
from errata.models import EditableModel, Site, fingerprint_of
from errata.moments import ridged
from errata.passes import SHORT_AND_SHORTER, Lookup, sample_contexts
from errata.runtime import silent, to_json
from errata.settings import about
from errata.solve import KeyPrompts, KeySettings
from errata.values import Outcome, Targets, TargetStore, ValueSettings, optimize_targets

Key = Literal["mean", "bare", "consistent"]
PLAIN = KeySettings(average="plain")
"""Keys as published: of the prompt alone, and none preserved."""
STAGE = "writing"
NO_UPDATE = "its update was infinite or not a number (the fact's two keys have nothing in common)"
"""Why a fact is left out although it has a value."""


@dataclass(frozen=True, kw_only=True)
class RankOneSettings:
    """From which key the update is made.

    `covariance_ridge` adds a multiple of the identity to C, as a share of its mean eigenvalue (0 in the paper).
    """

    key: Key = field(
        metadata=about(
            "The key of the update: the published mean, the bare prompt's, or the mean in both places."
        )
    )
    covariance_ridge: float = field(
        default=0.0, metadata=about("Ridge on the second moments, as a share of their mean eigenvalue.")
    )

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        if not self.covariance_ridge >= 0:
            raise SettingsError(f"Setting 'covariance_ridge' must be 0 or more: {self.covariance_ridge}.")


@dataclass(frozen=True, kw_only=True)
class RomeSettings:
    """How the value is optimized, at which one layer, and from which key the update is made."""

    layers: tuple[int, ...] = field(metadata=about("The one block that is written."))
    lookup: Lookup = field(default="subject_last", metadata=about(LOOKUP))
    values: ValueSettings
    keys: KeySettings
    solve: RankOneSettings

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_layers(self.layers)
        if len(self.layers) != 1:
            raise SettingsError(
                f"Setting 'layers' must be one block for rome, which writes a single map: {list(self.layers)}. "
                "Choose one of them, for example the one in the middle."
            )


def check(model: EditableModel, settings: RomeSettings) -> None:
    """ROME's value is the output of the FFN.

    Raises:
        SettingsError: another place.
    """
    check_places(settings.values, optimize=("ffn",), needed=("ffn",), method="rome")


def rome(task: Task, settings: RomeSettings) -> Changes:
    """Write the facts one after the other, each into the weights that the ones before have changed.

    Facts whose value is in `task.known` are in the weights already and left alone. A fact without a finite value or
    update is left out, and the next one follows.

    Raises:
        NoFactsLeft: nothing could be written.
        CovarianceError: C is not positive definite.
    """
    sequence = _Sequence.start(task, settings)
    outcomes: list[Outcome] = []
    failed: dict[int, str] = {}
    with task.model.ledger.temporary():
        for index, fact in enumerate(task.facts):
            outcome = task.known.get(index)
            if outcome is None:
                outcome = sequence.value(fact)
                one = Targets.of([outcome], settings.values.optimize)
                why = one.reasons.get(0) or sequence.write(fact, outcome)
                if why:
                    failed[index] = why
            outcomes.append(outcome)
            task.on_progress(STAGE, index + 1, len(task.facts))
    if len(failed) == len(task.facts):
        values_left(Targets.of(outcomes, settings.values.optimize))
        raise NoFactsLeft(
            f"No fact could be written: of the first one, {failed[0]}. Is the model's precision too low?"
        )
    return Changes(sequence.deltas, failed, tuple(outcomes))


@dataclass
class _Sequence:
    """A run of ROME: what stays the same for all facts, and what those so far have come to."""

    task: Task
    settings: RomeSettings
    site: Site
    factor: Float[Tensor, "d_in d_in"]
    """The Cholesky factor of C."""
    before: Tensor
    """The weight as it was, in its own orientation."""
    total: Float[Tensor, "d_out d_in"]
    """The sum of the updates, so that the weight is rounded to its dtype once and not once a fact."""
    keeper: TargetStore | None
    lefts: list[Float[Tensor, " d_out"]] = field(default_factory=list[Tensor])
    rights: list[Float[Tensor, " d_in"]] = field(default_factory=list[Tensor])

    @classmethod
    def start(cls, task: Task, settings: RomeSettings) -> "_Sequence":
        site = task.model.site("ffn", settings.layers[0]).held()
        keeper, ridge = task.keeper(settings), settings.solve.covariance_ridge
        if keeper is not None:
            source = fingerprint_of([(site.path, task.covariance(site))])
            keeper = keeper.after([settings.solve.key, ridge, source, *digest_beside(settings.keys)])
        factor = task.lower(site, ridge)
        if factor is None:
            factor = _factor(ridged(task.covariance(site), ridge), site)
        total = torch.zeros_like(site.matrix, dtype=_precise(site))
        return cls(task, settings, site, factor, site.weight.detach().clone(), total, keeper)

    def value(self, fact: Fact) -> Outcome:
        """v* with the weights as they stand now; kept, and found again, by the facts that were written before."""
        targets = optimize_targets(
            self.task.model,
            [fact],
            self.task.contexts,
            self.settings,
            keeper=self.keeper,
            on_progress=silent,
            unedited=self.task.unedited,
        )
        return targets.outcomes[0]

    def write(self, fact: Fact, outcome: Outcome) -> str:
        """Add the fact's update to the weight; where that cannot be, leave the weight alone and say why."""
        left, right = self._update(fact, (outcome.initial["ffn"] + outcome.delta["ffn"]).to(self.factor))
        change = torch.outer(left.to(self.total), right.to(self.total))
        if not bool(change.isfinite().all()):
            return NO_UPDATE
        self._set(self.total + change)
        if not bool(self.site.weight.isfinite().all()):
            self._set(self.total)
            return NO_UPDATE
        self.total += change
        self.lefts.append(left)
        self.rights.append(right)
        if self.keeper is not None:
            self.keeper = self.keeper.after(to_json(fact))
        return ""

    @property
    def deltas(self) -> dict[str, Delta]:
        """The one change, of a rank as large as the number of facts; none where nothing was written."""
        if not self.lefts:
            return {}
        left, right = torch.stack(self.lefts, dim=1), torch.stack(self.rights)
        return {self.site.path: Delta.from_factors(left, right, dtype=_precise(self.site))}

    def _update(
        self, fact: Fact, value: Float[Tensor, " d_out"]
    ) -> tuple[Float[Tensor, " d_out"], Float[Tensor, " d_in"]]:
        """(v* - m) / (u . k') and u."""
        own = self.settings
        step = rome_step(
            self.task.model,
            fact,
            self.task.contexts,
            self.site,
            self.factor,
            KeyReading(own.solve.key, own.keys, own.lookup),
        )
        return (value - step.output) / (step.direction @ step.divisor), step.direction

    def _set(self, total: Float[Tensor, "d_out d_in"]) -> None:
        self.task.model.ledger.write(self.site, self.before)
        write_deltas(self.task.model, {self.site.path: Delta(None, None, total)})


def digest_beside(keys: KeySettings) -> list[object]:
    """What values kept on disk depend on beside C and `key`, by flat names: those of the first version stay known."""
    preserved = {
        "key_templates": keys.templates,
        "preserve_keys": keys.preserve,
        "preserve_key_weight": keys.preserve_weight,
        "preserve_key_rows": keys.preserve_rows,
    }
    average: list[object] = [] if keys.average == PLAIN.average else [keys.average]
    return average if replace(keys, average=PLAIN.average) == PLAIN else [preserved, *average]


@dataclass(frozen=True)
class RomeStep:
    """What ROME's update of one fact is made of, beside v*."""

    direction: Float[Tensor, " d_in"]
    """u, of length 1."""
    divisor: Float[Tensor, " d_in"]
    """k'."""
    output: Float[Tensor, " d_out"]
    """m, what the map puts out for k'."""


@dataclass(frozen=True)
class KeyReading:
    """Which key a step uses, and how keys are read."""

    key: Key = "mean"
    keys: KeySettings = PLAIN
    lookup: Lookup = "subject_last"


def rome_step(
    model: EditableModel,
    fact: Fact,
    contexts: Sequence[str],
    site: Site,
    factor: Float[Tensor, "d_in d_in"],
    reading: KeyReading,
) -> RomeStep:
    """u, k' and m of a fact with the weights as they stand now; `factor` is the Cholesky factor of C, in float64."""
    key, keys, lookup = reading.key, reading.keys, reading.lookup
    bare_prompt = KeyPrompts.of(model, [fact], ("",), lookup)
    bare = bare_prompt.keys(site, "plain")[0].to(factor)
    output = bare_prompt.values(site.path)[0].to(factor)
    prompts = KeyPrompts.of(model, [fact], contexts, lookup, keys.templates)
    mean = bare if key == "bare" else prompts.keys(site, keys.average)[0].to(factor)
    if key == "consistent":
        output = output + site.matrix.to(factor) @ (mean - bare)
    raw = torch.cholesky_solve(mean[:, None], factor)[:, 0]
    if preserved := keys.kept([fact]):
        rows = KeyPrompts.of(model, preserved, ("",), lookup).keys(site, "plain").to(factor)
        raw = _beside(raw, rows * math.sqrt(keys.preserve_weight), factor)
    length = cast(Tensor, torch.linalg.vector_norm(raw))
    return RomeStep(raw / length, mean if key == "consistent" else bare, output)


def _beside(
    raw: Float[Tensor, " d_in"], keys: Float[Tensor, "kept d_in"], factor: Float[Tensor, "d_in d_in"]
) -> Float[Tensor, " d_in"]:
    """(C + P^T P)^-1 k by Woodbury, from C^-1 k, P, and the Cholesky factor of C."""
    solved = torch.cholesky_solve(keys.T, factor)
    inside = keys @ solved
    inside.diagonal().add_(1)
    return raw - solved @ cast(Tensor, torch.linalg.solve(inside, keys @ raw))


def _precise(site: Site) -> torch.dtype:
    return torch.promote_types(site.weight.dtype, torch.float32)


def _factor(covariance: Float[Tensor, "d_in d_in"], site: Site) -> Float[Tensor, "d_in d_in"]:
    """The Cholesky factor of C in float64.

    Raises:
        CovarianceError: C is not positive definite.
    """
    factor, wrong = cast("tuple[Tensor, Tensor]", torch.linalg.cholesky_ex(covariance))
    if int(wrong) != 0 or not bool(factor.isfinite().all()):
        raise CovarianceError(
            f"The second moments of {site.path} are not positive definite. They were measured on too few tokens, or "
            "the file is damaged: collect them again from more text (`errata covariance collect --samples`)."
        )
    return factor


METHOD = Method(
    name="rome",
    summary="makes one FFN put out the fact's value exactly: an update of rank one, fact after fact",
    source="Meng et al., Locating and Editing Factual Associations in GPT, NeurIPS 2022",
    writes="the FFN's down projection in one layer",
    order="sequence",
    cost="up to `values.steps` passes over 22 short texts, forward and back; one triangular solve",
    settings=RomeSettings,
    check=check,
    run=rome,
    sites=lambda settings: (settings,),
    moments=lambda model, settings: [model.site("ffn", settings.layers[0])],
    contexts=lambda model, seed: sample_contexts(model, seed, SHORT_AND_SHORTER),
    context_count=21,
)
