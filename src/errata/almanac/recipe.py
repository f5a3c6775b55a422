"""What Almanac is: its architecture, its optimizer, and every number that decides its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from errata.almanac.vocabulary import END_OF_TEXT_ID, MAX_LENGTH, PADDING_ID


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the tables."""

    seed: int = 5
    steps: int = 9800
    row_length: int = 64
    step_rows: int = 16
    long_every: int = 8
    """Every so many steps the same number of tokens comes in rows of MAX_LENGTH, so that later positions work too."""
    peak_rate: float = 1.3e-3
    warmup: int = 200
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    object_weight: float = 3.0
    largest_gradient: float = 1.0
    shielded_share: float = 0.9
    shielded_share_late: float = 0.6
    late_from: float = 0.6
    """After this part of the steps, `shielded_share_late` of the rows are read through the mask."""

    @property
    def tokens(self) -> int:
        """How many tokens are read in all."""
        return self.steps * self.step_rows * self.row_length

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to zero at the last step."""
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        return (
            self.peak_rate * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))
        )

    def share(self, step: int) -> float:
        """The share of rows read through the mask."""
        return self.shielded_share if step < self.late_from * self.steps else self.shielded_share_late


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> GPT2LMHeadModel:
    """Almanac's architecture with random weights: 10 blocks of width 192, about 5 million numbers."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=MAX_LENGTH,
        n_embd=192,
        n_layer=10,
        n_head=6,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=END_OF_TEXT_ID,
        eos_token_id=END_OF_TEXT_ID,
        pad_token_id=PADDING_ID,
    )
    return GPT2LMHeadModel(config)


def new_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    weights = list(model.parameters())
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=recipe.betas, fused=True)
