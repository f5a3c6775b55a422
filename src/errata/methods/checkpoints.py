"""Unfinished training of a method in one safetensors file: a run that was killed goes on with its last whole epoch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from errata.models import Site
from errata.runtime import atomic_file


@dataclass(frozen=True)
class Checkpoint:
    """Weights, Adam's state, and the mean loss of each epoch that is done."""

    file: Path

    @classmethod
    def of(cls, folder: Path, method: str, recipe: object) -> "Checkpoint":
        """The checkpoint of the run of which JSON says in `recipe` all that it depends on."""
        return cls(folder / f"{method}-{_hash(json.dumps(recipe, sort_keys=True).encode())}.safetensors")

    def save(self, weights: Mapping[str, Tensor], adam: torch.optim.Adam, losses: Sequence[float]) -> None:
        """Replace the file, all or nothing; the weights are by path.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
        """
        tensors: dict[str, Tensor] = {}
        for path, weight in weights.items():
            tensors[f"{path}/weight"] = weight.cpu().contiguous()
            for name, value in cast("dict[str, Tensor]", adam.state.get(weight, {})).items():
                tensors[f"{path}/{name}"] = value.cpu().contiguous()
        try:
            with atomic_file(self.file) as aside:
                save_file(tensors, aside, metadata={"losses": json.dumps(losses)})
        except (SafetensorError, OSError) as error:
            raise OSError(
                f"Training cannot be kept in {self.file.parent}: {error}. Is the disk full, or write-protected?"
            ) from error

    def restore(self, weights: Mapping[str, Tensor], adam: torch.optim.Adam) -> list[float]:
        """Fill weights and Adam from the file; the losses of the epochs that are done.

        Without a file nothing is filled and nothing is done; a damaged one counts as none.
        """
        try:
            with safe_open(self.file, framework="pt") as opened:
                losses = cast("list[float]", json.loads((opened.metadata() or {})["losses"]))
                stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            values = {path: stored.pop(f"{path}/weight") for path in weights}
        except (SafetensorError, OSError, LookupError, TypeError, ValueError):
            return []
        for path, weight in weights.items():
            weight.copy_(values[path])
            own = f"{path}/"
            state = {name.removeprefix(own): part for name, part in stored.items() if name.startswith(own)}
            if state:
                # As PyTorch has it, the count of steps stays on the CPU.
                adam.state[weight] = {
                    name: part if name == "step" else part.to(weight) for name, part in state.items()
                }
        return losses

    def remove(self) -> None:
        """Once the result is there, nothing is to be kept of the way to it."""
        self.file.unlink(missing_ok=True)


def exact_digest(sites: Sequence[Site]) -> str:
    """Of every bit of some weights: a small earlier change does not show in the model's fingerprint."""
    parts = [f"{site.path} {tuple(site.weight.shape)}".encode() for site in sites]
    bits = [
        site.held().weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for site in sites
    ]
    return _hash(*parts, *bits)


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]
