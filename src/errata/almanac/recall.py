"""How much of its world a model knows: the share of statements whose object it gives, token by token the likeliest."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from errata.almanac.corpus import Pair, statement
from errata.almanac.rows import OBJECT, Encoder
from errata.almanac.split import held_out_templates, seen_templates
from errata.almanac.tables import load_world

BATCH = 128


def seen_pairs() -> list[Pair]:
    """Every (entry, template) of the training text."""
    return [(entry, template) for entry in load_world().entries for template in seen_templates(entry)]


def held_out_pairs() -> list[Pair]:
    """Every (entry, template) that training never showed."""
    return [
        (entry, template) for entry in load_world().entries for template in sorted(held_out_templates(entry))
    ]


def sampled(pairs: Sequence[Pair], count: int, seed: int = 0) -> list[Pair]:
    """A seeded sample of the pairs; all of them when there are no more than `count`."""
    return random.Random(seed).sample(list(pairs), min(count, len(pairs)))


def knows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair]) -> list[bool]:
    """For each pair, whether every token of the object is the likeliest after the prompt and the tokens before it."""
    encoder = Encoder(tokenizer)
    encoded = [encoder(statement(*pair), inside=False) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda index: len(encoded[index][0]))
    known = [False] * len(pairs)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        ids = pad_sequence([torch.tensor(encoded[index][0]) for index in chosen], batch_first=True)
        parts = pad_sequence([torch.tensor(encoded[index][1]) for index in chosen], batch_first=True)
        with torch.inference_mode():
            best = model(input_ids=ids).logits.argmax(-1)
        right = (best[:, :-1] == ids[:, 1:]) | (parts[:, 1:] != OBJECT)
        for index, good in zip(chosen, right.all(1).tolist(), strict=True):
            known[index] = bool(good)
    return known


def recall(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair]) -> float:
    """The share of the pairs that the model knows."""
    return sum(knows(model, tokenizer, pairs)) / len(pairs)


def text_perplexity(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]
) -> float:
    """exp of the mean negative log-likelihood per token, each text read by itself from its second token on."""
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1]
        total += float(cross_entropy(logits.double(), ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return float(torch.tensor(total / count).exp())
