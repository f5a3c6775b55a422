"""Unfinished training runs: kept in one safetensors file, which a later start goes on from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPT2LMHeadModel

from errata.almanac.recipe import Recipe
from errata.almanac.tables import world_fingerprint
from errata.errors import SettingsError
from errata.runtime import atomic_file


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
            tensors[f"weight/{name}"] = weight.detach()
            tensors[f"mean/{name}"] = optimizer.state[weight]["exp_avg"]
            tensors[f"square/{name}"] = optimizer.state[weight]["exp_avg_sq"]
        with atomic_file(self.file) as aside:
            save_file(tensors, aside, {"step": str(step), "seconds": str(seconds), "run": self.key})

    def restore(self, model: GPT2LMHeadModel, optimizer: torch.optim.AdamW) -> tuple[int, float]:
        """Fill model and optimizer from the file; the steps done and the seconds they took, zero without a file.

        Raises:
            SettingsError: the checkpoint is of another recipe or another world.
        """
        if not self.file.exists():
            return 0, 0.0
        with safe_open(self.file, framework="pt") as stored:
            metadata = cast("dict[str, str]", stored.metadata())
            if metadata["run"] != self.key:
                raise SettingsError(
                    f"{self.file} belongs to another recipe or world. Name another --work folder, or remove it."
                )
            step = int(metadata["step"])
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    weight.copy_(stored.get_tensor(f"weight/{name}"))
                    optimizer.state[weight] = {
                        "step": torch.tensor(float(step)),
                        "exp_avg": stored.get_tensor(f"mean/{name}"),
                        "exp_avg_sq": stored.get_tensor(f"square/{name}"),
                    }
            return step, float(metadata["seconds"])
