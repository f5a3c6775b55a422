"""Finished values on disk: a killed edit goes on where it was, and sweeps of lambda or spread find v* already there.

One safetensors file a batch, named by a digest of everything that v* depends on: how it is computed, the model's
weights, the contexts, the settings of the stage, and the batch's facts. v* depends neither on lambda nor on the spread.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from errata.facts import Fact
from errata.models import EditableModel
from errata.runtime import Store, digest_of, open_tensors, to_json, write_tensors
from errata.values.descent import Outcome, Trace
from errata.values.settings import Place, ValueSite

VERSION = 2
"""Of how values are computed: raised when the stage's numbers change, so that old ones are not found any more."""


@dataclass(frozen=True)
class TargetStore:
    """A `Keeper` of one model, set of contexts and settings."""

    folder: Path
    recipe: str
    places: tuple[Place, ...]
    neighbors: int
    """How many neighbors of a fact enter its loss."""
    preserved: int
    """How many of its preserve_prompts do."""

    @classmethod
    def of(
        cls,
        folder: Path,
        model: EditableModel,
        contexts: Sequence[str],
        site: ValueSite,
        relax: bool,
    ) -> "TargetStore":
        """The store in `folder` for runs with these arguments."""
        values = site.values
        recipe = [VERSION, model.measure_fingerprint(), str(model.dtype), list(contexts), _own(site), relax]
        return cls(
            folder,
            digest_of(recipe),
            values.optimize,
            neighbors=values.neighbor_count if values.neighbor_weight > 0 else 0,
            preserved=values.preserve_rows if values.preserves else 0,
        )

    def after(self, change: object) -> "TargetStore":
        """The store for values that are found once `change` has been made, of which JSON says all that they depend on.

        A method that writes fact by fact need not hash all weights again for each.
        """
        return replace(self, recipe=digest_of(self.recipe + json.dumps(change, sort_keys=True)))

    def load(self, facts: Sequence[Fact]) -> list[Outcome] | None:
        """What was kept for exactly these facts, or None; a damaged file counts as nothing."""
        return self._store.get(self._key(facts), lambda file: self._read(file, len(facts)))

    def save(self, facts: Sequence[Fact], outcomes: Sequence[Outcome]) -> None:
        """Keep these outcomes, all or nothing.

        Raises:
            OSError: they cannot be written, for example because the disk is full.
        """
        tensors = {
            f"{name}.{place}": torch.stack([getattr(outcome, name)[place].cpu() for outcome in outcomes])
            for name in ("initial", "delta")
            for place in outcomes[0].initial
        }
        traces = json.dumps([{**vars(outcome.trace), "deltas": []} for outcome in outcomes])
        self._store.put(self._key(facts), lambda aside: write_tensors(aside, tensors, {"traces": traces}))

    @property
    def _store(self) -> Store:
        return Store(self.folder, "Finished values")

    def _key(self, facts: Sequence[Fact]) -> str:
        return digest_of(self.recipe + json.dumps([self._texts(fact) for fact in facts]))

    def _read(self, file: Path, count: int) -> list[Outcome]:
        with open_tensors(file) as kept:
            tensors, traces = kept.part(), json.loads(kept.header["traces"])
        return [self._outcome(index, tensors, traces[index]) for index in range(count)]

    def _texts(self, fact: Fact) -> list[object]:
        """All of a fact that its value depends on."""
        neighbors = to_json(fact.neighbors[: self.neighbors])
        kept = list(fact.preserve_prompts[: self.preserved]) if self.preserved else []
        joins = fact.unusual_joins(self.neighbors)
        return [fact.prompt, fact.subject, fact.target_new, neighbors, kept, *joins]

    def _outcome(self, index: int, tensors: Mapping[str, torch.Tensor], trace: dict[str, object]) -> Outcome:
        initial, delta = (
            {place: tensors[f"{name}.{place}"][index] for place in self.places}
            for name in ("initial", "delta")
        )
        return Outcome(initial, delta, Trace(**trace))  # pyright: ignore[reportArgumentType]


def _own(site: ValueSite) -> dict[str, object]:
    """The settings that values depend on, by the flat names of the first version: values kept then stay known."""
    own: dict[str, object] = asdict(site.values)
    own["optimise"] = own.pop("optimize")
    own["layers"] = site.layers[-1:]
    for name in (
        "stop_probability",
        "learning_rate_scale",
        "least_probability",
    ):  # the first version did not have them
        if own[name] is None:
            del own[name]
    if own["optimizer"] == "adam":
        del own["optimizer"]
    del (
        own["write_unfound"],
        own["context_tokens"],
    )  # what becomes of a value; and what the contexts say themselves
    if site.lookup != "subject_last":  # values that were kept before there was a choice stay known
        own["lookup"] = site.lookup
    return own
