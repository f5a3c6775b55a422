"""A run of a method with everything settled but the facts: what `errata.edit` and the strategies share."""

import datetime
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from errata.edits import Dropped, Edit, EditOrigin, Realized, SettingValue
from errata.errors import CovarianceError
from errata.facts import Fact
from errata.methods.base import Changes, Method, SharedSite, Task, written_sites
from errata.models import EditableModel, Site
from errata.moments import Factors, read_moment
from errata.runtime import Progress
from errata.settings import Preset, flatten
from errata.solve import GaugedSolver, KeyPrompts, no_factor
from errata.values import Outcome

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A method, its settings, and what its stages share, ready for one write or several."""

    model: EditableModel
    method: Method[Any]
    settings: Any
    preset: Preset
    contexts: tuple[str, ...]
    moments: Path | None
    """The folder of second moments; None where the method needs none."""
    covariance: str
    """Which second moments these are, for the record."""
    seed: int
    keep_in: Path | None
    on_progress: Progress
    hold: bool = False
    """Whether keys of earlier edits enter K K^T, for the methods that do so on request."""

    def changes(
        self,
        facts: Sequence[Fact],
        known: Mapping[int, Outcome] | None = None,
        earlier: Mapping[str, Float[Tensor, "d_in d_in"]] | None = None,
        since: int | None = None,
    ) -> Changes:
        """Run the method once on the model as it stands, and leave the model so (see `Task`).

        `since` is the ledger's mark from before the first write of a strategy; by default, the mark now.
        """
        return self.method.run(self._task(facts, known, earlier, since), self.settings)

    def realized(self, facts: Sequence[Fact]) -> dict[str, Realized]:
        """What the weight of each solve amounts to, by module path, from the keys of these facts as the weights stand.

        A run writes lower layers first, which moves the keys of higher ones a little: close, not the same.
        """
        if self.method.solver is None:
            return {}
        found: dict[str, Realized] = {}
        task = self._task(facts)
        for own in self.method.sites(self.settings):
            solver = self.method.solver(task, own)
            prompts = KeyPrompts.of(self.model, facts, self.contexts, own.lookup, own.keys.templates)
            if not (isinstance(solver, GaugedSolver) and isinstance(own, SharedSite)):
                continue
            for site in written_sites(self.model, own):
                gauge = solver.gauge(site)
                gauge.see(prompts.keys(site, own.keys.average))
                one = gauge.solver()[1]
                if one is not None:
                    found[site.path] = one
        return found

    def _task(
        self,
        facts: Sequence[Fact],
        known: Mapping[int, Outcome] | None = None,
        earlier: Mapping[str, Float[Tensor, "d_in d_in"]] | None = None,
        since: int | None = None,
    ) -> Task:
        return Task(
            model=self.model,
            facts=facts,
            contexts=self.contexts,
            covariance=self._moment,
            lower=no_factor if self.moments is None else Factors(self.moments, self.model).lower,
            on_progress=self.on_progress,
            seed=self.seed,
            keep_in=self.keep_in,
            known=known or {},
            earlier=earlier or {},
            hold=self.hold,
            since=self.model.ledger.mark if since is None else since,
        )

    def as_edit(
        self,
        facts: Sequence[Fact],
        changes: Changes,
        strategy: Mapping[str, SettingValue] | None = None,
        history: Sequence[Mapping[str, SettingValue]] = (),
    ) -> Edit:
        """The changes as an edit of the model as it stands now; facts that were left out are logged."""
        dropped = tuple(Dropped(facts[index], reason) for index, reason in changes.failed.items())
        for one in dropped:
            logger.warning("%r about %r was left out: %s.", one.fact.prompt, one.fact.subject, one.reason)
        written = tuple(fact for index, fact in enumerate(facts) if index not in changes.failed)
        return Edit(
            changes.deltas,
            written,
            self._origin(strategy or {}),
            dropped,
            history=tuple(history),
            realized=changes.realized,
        )

    def _moment(self, site: Site) -> Float[Tensor, "d_in d_in"]:
        if self.moments is None:
            raise CovarianceError(
                f"{self.method.name} did not say that it needs the second moments of {site.path}."
            )
        return read_moment(self.moments, self.model, site)

    def _origin(self, strategy: Mapping[str, SettingValue]) -> EditOrigin:
        return EditOrigin(
            method=self.method.name,
            settings=flatten(self.settings),
            contexts=self.contexts,
            seed=self.seed,
            model=self.model.name,
            revision=self.model.revision,
            fingerprint=self.model.measure_fingerprint(),
            model_dtype=str(self.model.dtype).removeprefix("torch."),
            covariance=self.covariance,
            preset=f"{self.preset.name} ({self.preset.source})",
            versions={
                "python": platform.python_version(),
                **{name: version(name) for name in ("errata", "torch", "transformers", "safetensors")},
            },
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            strategy=strategy,
        )
