"""Unfinished training of a method in one safetensors file: a run that was killed goes on with its last whole epoch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from errata.models import Site
from errata.runtime import Store, digest_of, open_tensors, write_tensors


@dataclass(frozen=True)
class Checkpoint:
    """Weights, Adam's state, and the mean loss of each epoch that is done."""

    store: Store
    key: str

    @classmethod
    def of(cls, folder: Path, method: str, recipe: object) -> "Checkpoint":
        """The checkpoint of the run of which JSON says in `recipe` all that it depends on."""
        return cls(Store(folder, "Training", prefix=f"{method}-"), digest_of(recipe))

    def save(self, weights: Mapping[str, Tensor], adam: torch.optim.Adam, losses: Sequence[float]) -> None:
        """Replace the file, all or nothing; the weights are by path.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
        """
        tensors: dict[str, Tensor] = {}
        for path, weight in weights.items():
            tensors[f"{path}/weight"] = weight
            for name, value in cast("dict[str, Tensor]", adam.state.get(weight, {})).items():
                tensors[f"{path}/{name}"] = value
        header = {"losses": json.dumps(losses)}
        self.store.put(self.key, lambda aside: write_tensors(aside, tensors, header))

    def restore(self, weights: Mapping[str, Tensor], adam: torch.optim.Adam) -> list[float]:
        """Fill weights and Adam from the file; the losses of the epochs that are done.

        Without a file nothing is filled and nothing is done; a damaged one counts as none.
        """

        def read(file: Path) -> tuple[list[float], list[tuple[Tensor, dict[str, Tensor]]]]:
            with open_tensors(file) as kept:
                states = [kept.part(f"{path}/") for path in weights]
                return json.loads(kept.header["losses"]), [(state.pop("weight"), state) for state in states]

        losses, states = self.store.get(self.key, read) or ([], [])
        for weight, (value, state) in zip(weights.values(), states, strict=False):
            weight.copy_(value)
            if state:
                # As PyTorch has it, the count of steps stays on the CPU.
                adam.state[weight] = {
                    name: part if name == "step" else part.to(weight) for name, part in state.items()
                }
        return losses

    def remove(self) -> None:
        """Once the result is there, nothing is to be kept of the way to it."""
        self.store.clear(self.key)


def exact_digest(sites: Sequence[Site]) -> str:
    """Of every bit of some weights: a small earlier change does not show in the model's fingerprint."""
    parts = [f"{site.path} {tuple(site.weight.shape)}".encode() for site in sites]
    bits = [
        site.held().weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for site in sites
    ]
    digest = hashlib.sha256()
    for part in (*parts, *bits):
        digest.update(part)
    return digest.hexdigest()[:32]
