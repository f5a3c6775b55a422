"""How keys are read, how a residual is shared out, and how large an update the least squares allow."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from errata.errors import SettingsError
from errata.facts import Fact, wording
from errata.passes import Row, rewrite_rows, wording_rows
from errata.settings import about

KeyAverage = Literal["half", "plain"]
SiteKind = Literal["ffn", "attention"]


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """Which prompts a fact's key is the mean of, and which keys are preserved beside it (ours).

    `average`: "half": the bare prompt weighs one half, the other contexts together the other (the published programs).
    "plain": every context weighs the same (PMET eq. 12 as it reads). Of a fact's `edit_prompts` the first `templates`
    enter its key, each with the weight of the prompt itself.

    `preserve` adds keys whose output is to stay as it is, each with `preserve_weight` (1: as much as a fact's):
    "relation", those of the fact's neighbors, in their own wording and the fact's; "subject", those of the fact's
    preserve_prompts; "both". Of each at most `preserve_rows` a fact.
    """

    average: KeyAverage = field(
        metadata=about(
            "Mean over contexts: the bare prompt counts one half, or every context the same (plain)."
        )
    )
    templates: int = field(default=0, metadata=about("Other wordings (edit_prompts) per fact in its key."))
    preserve: Literal["none", "relation", "subject", "both"] = field(
        default="none",
        metadata=about(
            "Keys whose output is preserved: of neighbors (relation), of preserve_prompts (subject)."
        ),
    )
    preserve_weight: float = field(
        default=1.0, metadata=about("Weight of a preserved key; a fact's own has weight 1.")
    )
    preserve_rows: int = field(default=4, metadata=about("Preserved keys of each kind per fact, at most."))

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        if self.templates < 0:
            raise SettingsError(f"Setting 'templates' must be 0 or more: {self.templates}.")
        if self.preserve_rows < 1:
            raise SettingsError(f"Setting 'preserve_rows' must be at least 1: {self.preserve_rows}.")
        if not self.preserve_weight >= 0:
            raise SettingsError(f"Setting 'preserve_weight' must be 0 or more: {self.preserve_weight}.")

    def kept(self, facts: Sequence[Fact]) -> tuple[Fact, ...]:
        """What is preserved beside these facts, as facts, each once; what they change themselves is not among it.

        Of a preserve_prompt, whose answer nobody knows, the target is the fact's: no token of it is ever run.
        """
        if self.preserve == "none" or self.preserve_weight == 0:
            return ()
        edited = {fact.subject for fact in facts}
        asked = {wording.fill(one, fact.subject) for fact in facts for one in self._wordings(fact)}
        found: dict[str, Fact] = {}
        for fact in facts:
            if self.preserve in ("relation", "both"):
                for one in fact.neighbors[: self.preserve_rows]:
                    for template in (one.prompt, *self._wordings(fact)):
                        if one.subject not in edited:
                            kept = Fact(template, one.subject, one.target, join=fact.join)
                            found.setdefault(kept.question, kept)
            if self.preserve in ("subject", "both"):
                for template in fact.preserve_prompts[: self.preserve_rows]:
                    kept = Fact(template, fact.subject, fact.target_new, join=fact.join)
                    if kept.question not in asked:
                        found.setdefault(kept.question, kept)
        return tuple(found.values())

    @property
    def keeps_subjects(self) -> bool:
        """Whether keys of preserve_prompts are preserved."""
        return self.preserve in ("subject", "both") and self.preserve_weight > 0

    def rows_beside(self, facts: Sequence[Fact]) -> list[Row]:
        """Every text that keys are read from beside the prompts themselves: what does not fit is told at once."""
        return [*wording_rows(facts, self.templates), *rewrite_rows(self.kept(facts), ("",))]

    def _wordings(self, fact: Fact) -> tuple[str, ...]:
        return (fact.prompt, *fact.edit_prompts[: self.templates])


@dataclass(frozen=True, kw_only=True)
class SpreadSettings:
    """By what the residual is divided in each critical layer, and which maps are written there."""

    share: Literal["sqrt", "even"] = field(
        metadata=about("With n layers left, divide the residual by n (even) or by its square root (sqrt).")
    )
    write: tuple[SiteKind, ...] = field(metadata=about("The output maps that are written: ffn, attention."))

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        if not self.write or len(set(self.write)) != len(self.write):
            raise SettingsError(
                f"Setting 'write' must name one or both of 'attention' and 'ffn': {self.write}."
            )


@dataclass(frozen=True, kw_only=True)
class LeastSquaresSettings:
    """How values become weights. The papers' symbol: lambda = covariance_weight.

    Exactly one of two settings says how large it is: lambda itself, which every model needs another one of, or
    `realised_share`, from which it is chosen in every layer: rho of its residual is what one solve for the median fact
    alone brings about, lambda = median_i(k_i^T E[k k^T]^-1 k_i) (1 - rho) / rho (`errata.solve.leverage`).
    `covariance_ridge` adds a multiple of the identity to E[k k^T], as a share of its mean eigenvalue (0 in the papers):
    where text hardly ever uses some directions, an update could otherwise grow there without bounds.
    """

    covariance_weight: float | None = field(
        default=None,
        metadata=about("Weight of the second moments of all other text: the larger, the gentler the write."),
    )
    realised_share: float | None = field(
        default=None,
        metadata=about(
            "Instead of that weight: the share of its change that the median fact gets, above 0, below 1."
        ),
    )
    covariance_ridge: float = field(
        default=0.0, metadata=about("Ridge on the second moments, as a share of their mean eigenvalue.")
    )

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_weight("covariance_weight", self.covariance_weight, self.realised_share)
        if not self.covariance_ridge >= 0:
            raise SettingsError(f"Setting 'covariance_ridge' must be 0 or more: {self.covariance_ridge}.")


def check_weight(name: str, weight: float | None, share: float | None, other: str = "realised_share") -> None:
    """Raise unless exactly one of the number of that name and the share of the `other` is set, to what it can be.

    Raises:
        SettingsError: naming the setting.
    """
    if (weight is None) == (share is None):
        both = "are both set" if weight is not None else "both have no value"
        raise SettingsError(
            f"Setting '{name}' and its alternative '{other}' {both}. Set exactly one of them."
        )
    if weight is not None and not weight > 0:
        raise SettingsError(f"Setting '{name}' must be above 0: {weight}.")
    if share is not None and not 0 < share < 1:
        raise SettingsError(f"Setting '{other}' must be above 0 and below 1: {share}.")


@runtime_checkable
class SpreadSite(Protocol):
    """The blocks that are written and how: what the Spread stage needs of a site, whatever its solver."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks, ascending."""
        ...

    @property
    def keys(self) -> KeySettings:
        """How the facts' keys are read, and which are preserved."""
        ...

    @property
    def spread(self) -> SpreadSettings:
        """By what the residual is divided, and which maps are written."""
        ...
