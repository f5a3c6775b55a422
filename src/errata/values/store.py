"""Finished values on disk: a killed edit goes on where it was, and sweeps of lambda or spread find v* already there.

One safetensors file a batch, named by a digest of everything that v* depends on: how it is computed, the model's
weights, the contexts, the settings of the stage, and the batch's facts. v* depends neither on lambda nor on the spread.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from errata.facts import Fact
from errata.models import EditableModel
from errata.runtime import atomic_file, to_json
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
            _digest(json.dumps(recipe, sort_keys=True)),
            values.optimize,
            neighbors=values.neighbor_count if values.neighbor_weight > 0 else 0,
            preserved=values.preserve_rows if values.preserves else 0,
        )

    def after(self, change: object) -> "TargetStore":
        """The store for values that are found once `change` has been made, of which JSON says all that they depend on.

        A method that writes fact by fact need not hash all weights again for each.
        """
        return replace(self, recipe=_digest(self.recipe + json.dumps(change, sort_keys=True)))

    def load(self, facts: Sequence[Fact]) -> list[Outcome] | None:
        """What was kept for exactly these facts, or None; a damaged file counts as nothing."""
        path = self._path(facts)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as opened:
                traces = json.loads((opened.metadata() or {})["traces"])
            tensors = load_file(path)
            return [self._outcome(index, tensors, traces[index]) for index in range(len(facts))]
        except (SafetensorError, OSError, LookupError, TypeError, ValueError):
            return None

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
        try:
            with atomic_file(self._path(facts)) as aside:
                save_file(tensors, aside, metadata={"traces": traces})
        except (SafetensorError, OSError) as error:
            raise OSError(
                f"Finished values cannot be kept in {self.folder}: {error}. Is the disk full, or write-protected?"
            ) from error

    def _path(self, facts: Sequence[Fact]) -> Path:
        texts = json.dumps([self._texts(fact) for fact in facts])
        return self.folder / f"{_digest(self.recipe + texts)}.safetensors"

    def _texts(self, fact: Fact) -> list[object]:
        """All of a fact that its value depends on."""
        neighbors = to_json(fact.neighbors[: self.neighbors])
        kept = list(fact.preserve_prompts[: self.preserved]) if self.preserved else []
        return [fact.prompt, fact.subject, fact.target_new, neighbors, kept]

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
    if site.lookup != "subject_last":  # values that were kept before there was a choice stay known
        own["lookup"] = site.lookup
    return own


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
