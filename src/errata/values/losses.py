"""The terms of the loss that the Optimization stage minimises, from log-probabilities: pure functions, fact by fact.

loss = phi * NLL + mu * KL + omega * DECAY                        (PMET eq. 10, MEMIT eq. 16; METHODS.md)
     + neighbor_weight * NEIGHBOR + preserve_weight * PRESERVE

NLL       mean over contexts of the target's mean token surprisal, with delta added at the lookup position
KL        KL(P_delta || P_0) of the next token after the subject in "{subject} is a"
DECAY     ||delta|| / ||v0||^2, one term for each delta
NEIGHBOR  -log P(o | x~ ; delta), the mean over the object's tokens and over the neighbors (paper 2, eq. 7)
PRESERVE  mean over other prompts about the same subject of KL(P_delta || P_0) of their next token (ours)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from errata.passes import PromptBatch


@dataclass(frozen=True)
class Terms:
    """One pass, fact by fact; all but `nll_each` already carry their factors."""

    nll: Float[Tensor, " fact"]
    kl: Float[Tensor, " fact"]
    decay: Float[Tensor, " fact"]
    neighbor: Float[Tensor, " fact"]
    """Zero where neighbors enter the NLL as the published program has it."""
    preserve: Float[Tensor, " fact"]
    nll_each: Float[Tensor, "fact context"]
    on_top: Bool[Tensor, " fact"]
    """Whether the target is the argmax at every target position of every context."""

    @property
    def loss(self) -> Float[Tensor, " fact"]:
        """The sum of the terms."""
        return self.nll + self.kl + self.decay + self.neighbor + self.preserve


@dataclass(frozen=True)
class Surprisal:
    """How surprised the model is by the answer of each row; rows without an answer hold zeros."""

    total: Float[Tensor, " row"]
    """-sum log P(t), in nats."""
    tokens: Float[Tensor, " row"]
    missed: Float[Tensor, " row"]
    """Tokens of the answer that are not the argmax."""

    @classmethod
    def of(cls, log_p: Float[Tensor, "predicted vocab"], batch: PromptBatch) -> "Surprisal":
        """Gather the rows' answers from the log-probabilities at the batch's predicted positions."""
        return cls._of(-log_p.gather(1, batch.predict_id[:, None])[:, 0], log_p, batch)

    @classmethod
    def of_logits(cls, logits: Float[Tensor, "predicted vocab"], batch: PromptBatch) -> "Surprisal":
        """The same from logits: -log P(t) = log sum exp(logits) - logit(t); no other token's log P is held."""
        target = logits.gather(1, batch.predict_id[:, None])[:, 0]
        return cls._of(logits.logsumexp(dim=1) - target, logits, batch)

    @classmethod
    def _of(
        cls, each: Float[Tensor, " predicted"], scores: Float[Tensor, "predicted vocab"], batch: PromptBatch
    ) -> "Surprisal":
        zeros = torch.zeros(len(batch.fact), dtype=scores.dtype, device=scores.device)
        missed = (scores.argmax(dim=1) != batch.predict_id).to(scores.dtype)
        return cls(
            total=zeros.index_add(0, batch.predict_row, each),
            tokens=zeros.index_add(0, batch.predict_row, torch.ones_like(each)),
            missed=zeros.index_add(0, batch.predict_row, missed),
        )

    @property
    def mean(self) -> Float[Tensor, " row"]:
        """-(1/T) sum log P(t)."""
        return self.total / self.tokens.clamp(min=1)


def by_context(values: Float[Tensor, " row"], batch: PromptBatch) -> Float[Tensor, "fact context"]:
    """The values of the rewrite rows, of which every fact has one a context."""
    return values[batch.rows_of("rewrite")].reshape(int(batch.bare.sum()), -1)


def neighbor_mean(surprisal: Surprisal, batch: PromptBatch) -> Float[Tensor, " fact"]:
    """The mean over a fact's neighbors of -(1/T) sum log P(o); 0 where it has none."""
    rows = batch.rows_of("neighbor")
    return mean_by_fact(surprisal.mean[rows], batch.fact[rows], int(batch.bare.sum()))


def published_nll(surprisal: Surprisal, batch: PromptBatch, weight: float) -> Float[Tensor, " fact"]:
    """The mean over contexts and neighbors, each neighbor's sum divided by the *target's* token count (METHODS.md)."""
    each = by_context(surprisal.mean, batch)
    target_tokens = by_context(surprisal.tokens, batch)[:, 0]
    rows = batch.rows_of("neighbor")
    fact = batch.fact[rows]
    added = each.sum(dim=1).index_add(0, fact, weight * surprisal.total[rows] / target_tokens[fact])
    count = torch.full_like(target_tokens, each.shape[1]).index_add(
        0, fact, torch.ones_like(target_tokens[fact])
    )
    return added / count


def targets_on_top(surprisal: Surprisal, batch: PromptBatch, neighbors_too: bool) -> Bool[Tensor, " fact"]:
    """Whether nothing of a fact's answers is missed, behind any context (and, published, by any neighbor)."""
    misses = by_context(surprisal.missed, batch).sum(dim=1)
    if neighbors_too:
        rows = batch.rows_of("neighbor")
        misses = misses.index_add(0, batch.fact[rows], surprisal.missed[rows])
    return misses == 0


def divergence(
    log_p: Float[Tensor, "row vocab"], reference: Float[Tensor, "row vocab"]
) -> Float[Tensor, " row"]:
    """KL(P || P_0) in nats, from log P and log P_0.

    Summed as P log(P / P_0) + (P_0 - P): the second part is 0 over the vocabulary, and with it what rounding adds to
    every log P alike cancels token by token.
    """
    p, p_0 = log_p.exp(), reference.exp()
    return (p * (log_p - reference) + (p_0 - p)).sum(dim=1)


def mean_by_fact(
    values: Float[Tensor, " row"], fact: Int[Tensor, " row"], facts: int
) -> Float[Tensor, " fact"]:
    """The mean of each fact's rows; 0 where it has none."""
    zeros = torch.zeros(facts, dtype=values.dtype, device=values.device)
    count = zeros.index_add(0, fact, torch.ones_like(values))
    return zeros.index_add(0, fact, values) / count.clamp(min=1)
