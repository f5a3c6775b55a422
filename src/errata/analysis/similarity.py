"""Component similarity: how much attention and FFN turn the hidden state of a prompt's last token (PMET, Figure 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from errata.errors import FactError
from errata.facts import Fact
from errata.models import SHORTEST, EditableModel, Tokens
from errata.passes import by_length, encode_text, pad
from errata.runtime import Progress, silent

TOP = 50
"""The paper's k of the Jaccard similarity."""
FACTS_AT_ONCE = 32


@dataclass(frozen=True)
class Similarity:
    """Per block, means over facts: what enters a component against what it puts out."""

    cosine: dict[str, list[float]]
    """By component, "attention" and "ffn"; block by block."""
    jaccard: dict[str, list[float]]
    """Of the likeliest tokens when both states are read through the final norm and the head."""
    facts: int
    top: int


def component_similarity(
    model: EditableModel, facts: Sequence[Fact], top: int = TOP, on_progress: Progress = silent
) -> Similarity:
    """Cosine and Jaccard similarity before and after the attention and the FFN of each block (PMET, eq. 7, Figure 2).

    At the last token of each fact's prompt. "Before" is the residual stream that enters the component: h^(l-1), and for
    the FFN of a block that runs its components one after the other h^(l-1) + a^l. "After" is the component's output:
    a^l, m^l. J_k = |T(x) & T(y)| / |T(x) | T(y)|, T the k likeliest tokens.

    Raises:
        FactError: there are no facts.
    """
    if not facts:
        raise FactError("There are no facts to look at. Give at least one.")
    totals = {kind: torch.zeros(2, model.layers, dtype=torch.float64) for kind in ("attention", "ffn")}
    ids = [encode_text(model, fact.question, None).ids for fact in facts]
    done = 0
    for group in by_length([len(row) for row in ids], FACTS_AT_ONCE):
        tokens = pad([ids[index] for index in group], model)
        last = tokens.mask.sum(dim=1) - 1
        for layer, states in enumerate(_states(model, tokens, last)):
            for kind, (before, after) in states.items():
                totals[kind][0, layer] += _cosine(before, after)
                totals[kind][1, layer] += _jaccard(model, before, after, top)
        done += len(group)
        on_progress("similarity", done, len(facts))
    means: dict[str, list[list[float]]] = {
        kind: (total / len(facts)).tolist() for kind, total in totals.items()
    }
    return Similarity(
        cosine={kind: mean[0] for kind, mean in means.items()},
        jaccard={kind: mean[1] for kind, mean in means.items()},
        facts=len(facts),
        top=min(top, len(model.tokenizer)),
    )


Pair = tuple[Float[Tensor, "row d_model"], Float[Tensor, "row d_model"]]


def _states(model: EditableModel, tokens: Tokens, last: Int[Tensor, " row"]) -> list[dict[str, Pair]]:
    """Per block, the state that enters each component and what it puts out."""
    blocks = [model.block_path(layer) for layer in range(model.layers)]
    outputs = [model.site(kind, layer).path for layer in range(model.layers) for kind in ("attention", "ffn")]
    seen = model.values_at(tokens, last, inputs_of=blocks, outputs_of=outputs)
    pairs: list[dict[str, Pair]] = []
    for layer, block in enumerate(blocks):
        entering = seen[block]
        attended, written = (seen[model.site(kind, layer).path] for kind in ("attention", "ffn"))
        between = entering if model.parallel else entering + attended
        pairs.append({"attention": (entering, attended), "ffn": (between, written)})
    return pairs


def _cosine(before: Float[Tensor, "row d_model"], after: Float[Tensor, "row d_model"]) -> float:
    """The sum over rows."""
    return float(torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1).sum())


def _jaccard(
    model: EditableModel, before: Float[Tensor, "row d_model"], after: Float[Tensor, "row d_model"], top: int
) -> float:
    """The sum over rows."""
    one, other = (_likeliest(model, states, top) for states in (before, after))
    shared = [len(set(x) & set(y)) for x, y in zip(one, other, strict=True)]
    return sum(both / (2 * len(one[0]) - both) for both in shared)


def _likeliest(model: EditableModel, states: Float[Tensor, "row d_model"], top: int) -> list[list[int]]:
    """The likeliest tokens of states that take the place of the last block's output: the model's own norm and head."""
    ids = torch.zeros(len(states), SHORTEST, dtype=torch.long, device=model.device)
    tokens = Tokens(ids, torch.ones_like(ids, dtype=torch.bool))

    def put(hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        changed[:, 0] = states.to(hidden)
        return changed

    rows = torch.arange(len(states), device=model.device)
    with torch.no_grad(), model.hooked({model.block_path(model.layers - 1): put}, "output"):
        logits = model.logits_at(tokens, rows, torch.zeros_like(rows))
    return cast("list[list[int]]", logits.topk(min(top, logits.shape[-1]), dim=-1).indices.tolist())
