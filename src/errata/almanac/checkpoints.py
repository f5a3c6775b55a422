"""Unfinished training runs: kept in one safetensors file, which a later start goes on from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from errata.almanac.recipe import Recipe
from errata.almanac.tables import world_fingerprint
from errata.errors import SettingsError
from errata.runtime import open_tensors, save_tensors


@dataclass(frozen=True)
class Checkpoints:
    """A run's state in one safetensors file: weights, Adam's moments, and the step in its metadata."""

    file: Path
    recipe: Recipe

    @property
    def key(self) -> str:
        """What has to be the same for a checkpoint to be of this run."""
        return json.dumps({**asdict(self.recipe), "world": world_fingerprint()})

    def save(self, model: GPT2LMHeadModel, optimizer: torch.optim.AdamW, step: int, seconds: float) -> None:
        """Replace the file by the state after `step` steps."""
        tensors: dict[str, Tensor] = {}
        for name, weight in model.named_parameters():
            tensors[f"weight/{name}"] = weight
            tensors[f"mean/{name}"] = optimizer.state[weight]["exp_avg"]
            tensors[f"square/{name}"] = optimizer.state[weight]["exp_avg_sq"]
        header = {"step": str(step), "seconds": str(seconds), "run": self.key}
        save_tensors(self.file, tensors, header)

    def restore(self, model: GPT2LMHeadModel, optimizer: torch.optim.AdamW) -> tuple[int, float]:
        """Fill model and optimizer from the file; the steps done and the seconds they took, zero without a file.

        Raises:
            SettingsError: the checkpoint is of another recipe or another world.
        """
        if not self.file.exists():
            return 0, 0.0
        with open_tensors(self.file) as kept:
            if kept.header["run"] != self.key:
                raise SettingsError(
                    f"{self.file} belongs to another recipe or world. Name another --work folder, or remove it."
                )
            step = int(kept.header["step"])
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    weight.copy_(kept.tensor(f"weight/{name}"))
                    optimizer.state[weight] = {
                        "step": torch.tensor(float(step)),
                        "exp_avg": kept.tensor(f"mean/{name}"),
                        "exp_avg_sq": kept.tensor(f"square/{name}"),
                    }
            return step, float(kept.header["seconds"])
