"""How values are optimized, and what the stage needs to know of the site where they stand."""

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from errata.errors import SettingsError
from errata.passes import Lookup
from errata.settings import about

Place = Literal["attention", "ffn", "block"]
PLACES: tuple[Place, ...] = ("attention", "ffn", "block")


@dataclass(frozen=True, kw_only=True)
class ValueSettings:
    """How the values are optimized. The papers' symbols: mu = kl_weight, phi = nll_weight, omega = decay.

    With `neighbor_weight` above 0, the fact's first `neighbor_count` neighbors enter the loss: added to it ("sum",
    Baghel et al., 2025, eq. 7), or as rows of the mean over contexts ("published", what their program does).
    """

    steps: int = field(
        metadata=about("Largest number of passes per fact, each but the last followed by a step.")
    )
    learning_rate: float | None = field(default=None, metadata=about("Learning rate."))
    learning_rate_scale: float | None = field(
        default=None,
        metadata=about("Instead of that rate: as a multiple of the root mean square of the clean value."),
    )
    optimizer: Literal["adam", "gradient"] = field(
        default="adam",
        metadata=about("Adam, or normalized gradient steps of fixed length."),
    )
    clamp: float = field(
        metadata=about("Largest norm of the delta, as a multiple of the clean value's norm.")
    )
    decay: float = field(metadata=about("Weight of the delta's norm in the loss."))
    kl_weight: float = field(
        metadata=about("Weight of the KL divergence on a neutral prompt about the subject.")
    )
    kl_position: Literal["subject", "end"] = field(
        metadata=about("Where that divergence is read: at the subject's last token, or at the prompt's end.")
    )
    nll_weight: float = field(metadata=about("Weight of the target's negative log-likelihood."))
    optimize: tuple[Place, ...] = field(
        metadata=about("The outputs that get a delta: attention, ffn, or the whole block.")
    )
    neighbor_weight: float = field(
        default=0.0, metadata=about("Weight of the neighbors' loss; 0 leaves them out.")
    )
    neighbor_loss: Literal["sum", "published"] = field(
        default="sum", metadata=about("How neighbors enter: as a term of their own, or as rows of the mean.")
    )
    neighbor_prefix: bool = field(
        default=False, metadata=about("Put neighbors behind the first generated context.")
    )
    neighbor_count: int = field(default=1, metadata=about("Neighbors per fact, at most."))
    preserve: Literal["none", "subject"] = field(
        default="none",
        metadata=about("Preserve what the unedited model says next in other statements about the subject."),
    )
    preserve_weight: float = field(default=1.0, metadata=about("Weight of those statements in the loss."))
    preserve_rows: int = field(default=4, metadata=about("Preserved statements per fact, at most."))
    context_tokens: int | None = field(
        default=None,
        metadata=about("Length of the sampled contexts, in tokens; none: as the method's paper has it."),
    )
    least_probability: float | None = field(
        default=None,
        metadata=about("Probability per token, over contexts, to which a value must bring its target."),
    )
    write_unfound: bool = field(
        default=False, metadata=about("Write a value that stays below it all the same.")
    )
    stop_probability: float | None = field(
        default=None,
        metadata=about(
            "Probability per token of the target, behind every context, at which a fact stops; none: no such stop."
        ),
    )

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        if self.steps < 1:
            raise SettingsError(
                f"Setting 'steps' must be at least 1 (one pass that only measures): {self.steps}."
            )
        if (self.learning_rate is None) == (self.learning_rate_scale is None):
            raise SettingsError(
                "Setting 'learning_rate' or its alternative 'learning_rate_scale': exactly one must have a value."
            )
        for name in ("learning_rate", "learning_rate_scale", "clamp"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingsError(f"Setting {name!r} must be above 0: {value}.")
        for name in ("neighbor_count", "preserve_rows", "context_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"Setting {name!r} must be at least 1: {value}.")
        for name in ("decay", "kl_weight", "nll_weight", "neighbor_weight", "preserve_weight"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"Setting {name!r} must be 0 or more: {getattr(self, name)}.")
        if self.least_probability is not None and not 0 < self.least_probability < 1:
            raise SettingsError(
                f"Setting 'least_probability' must lie between 0 and 1, or be none: {self.least_probability}."
            )
        if self.stop_probability is not None and not 0 < self.stop_probability < 1:
            raise SettingsError(
                f"Setting 'stop_probability' must lie between 0 and 1, or be none: {self.stop_probability}."
            )
        if not self.optimize or len(set(self.optimize)) != len(self.optimize):
            raise SettingsError(
                f"Setting 'optimize' must name one or more different places of {PLACES}: {self.optimize}."
            )

    @property
    def preserves(self) -> bool:
        """Whether other prompts about the subject enter the loss."""
        return self.preserve == "subject" and self.preserve_weight > 0


@runtime_checkable
class ValueSite(Protocol):
    """Where values stand and how they are optimized: what this stage needs of a site, however it is written."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks that are written, ascending; values stand in the last one."""
        ...

    @property
    def lookup(self) -> Lookup:
        """The token at which values stand and keys are read, in every row of a fact."""
        ...

    @property
    def values(self) -> ValueSettings:
        """How the values are optimized."""
        ...
