"""Free texts about the edited subjects, and how fluent and how consistent with the new fact they are.

    fluency     = mean over texts of (2/3 H_2 + 4/3 H_3) / 2,   H_n = -sum_g f(g) log2 f(g) over the n-grams g of words
    consistency = cos(tfidf(the texts), tfidf(the reference texts))

METHODS "Evaluation"; Meng et al. 2022 (ROME), section 3.2. The texts are sampled from the five likeliest tokens, 100
tokens each; every text has a seeded stream of random numbers of its own, so neither batches nor an edit change which.
NOTE: the published program counts the prompt among the 100 tokens and measures it too; METHODS says continuations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from errata.errors import SettingsError
from errata.evaluation.journal import Stage
from errata.evaluation.probabilities import TOKENS_AT_ONCE, decode, encode_at
from errata.evaluation.questions import Sheet
from errata.evaluation.references import References
from errata.models import EditableModel
from errata.passes import next_logits
from errata.results import Writing
from errata.runtime import processes

LENGTH = 100
TOP_K = 5
WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""How much the entropy of the n-grams of each n weighs."""


def ngram_entropy(text: str) -> float:
    """The mean over n = 2, 3 of weight_n * H_n, in bits; 0 for a text without n-grams.

    Raises:
        SettingsError: the package that tells words apart is not installed.
    """
    words = split_words(text)
    return math.fsum(weight * _entropy(words, n) for n, weight in WEIGHTS.items()) / len(WEIGHTS)


def split_words(text: str) -> list[str]:
    """The words and punctuation marks of a text, by the Treebank's rules, without any download.

    NOTE: the published program first splits sentences, with a model that is downloaded; here a full stop inside the
    text stays with its word.

    Raises:
        SettingsError: nltk is not installed.
    """
    try:
        import nltk
    except ImportError as error:
        raise SettingsError(
            "Fluency takes the package nltk, which is not installed. `pip install 'errata[eval]'`."
        ) from error
    return nltk.word_tokenize(text, preserve_line=True)


def writings(
    model: EditableModel,
    sheets: Sequence[Sheet],
    references: References | None = None,
    seed: int = 0,
    stage: Stage | None = None,
) -> list[Writing | None]:
    """What the model writes after the generation prompts of each fact; None for a fact without any.

    Raises:
        PromptTooLong: a generation prompt does not fit the model; the message names the fact.
        SettingsError: a package that is needed is not installed.
    """
    prompts: list[tuple[int, ...]] = []
    for sheet in sheets:
        where = f"{sheet.name}, generation_prompts"
        prompts += [encode_at(model, prompt, None, where).ids for prompt in sheet.fact.generation_prompts]
    drawn = sample_tokens(model, prompts, seed, stage=stage)
    written = iter(drawn)
    found: list[Writing | None] = []
    for sheet in sheets:
        asked = sheet.fact.generation_prompts
        texts = tuple(decode(model, next(written)) for _ in asked)
        found.append(_writing(sheet, texts, references) if asked else None)
    return found


def _writing(sheet: Sheet, texts: tuple[str, ...], references: References | None) -> Writing:
    entropy = math.fsum(ngram_entropy(text) for text in texts) / len(texts)
    near = None if references is None else references.similarity(sheet.fact, texts)
    return Writing(sheet.fact.generation_prompts, texts, entropy, near)


def sample_tokens(
    model: EditableModel,
    prompts: Sequence[tuple[int, ...]],
    seed: int = 0,
    length: int = LENGTH,
    top_k: int = TOP_K,
    stage: Stage | None = None,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> list[tuple[int, ...]]:
    """`length` tokens after each prompt, each drawn from the `top_k` likeliest, never a special one.

    A text ends early only where the context is full or the output is not a number.
    """
    written: dict[int, tuple[int, ...]] = {}
    stage = stage or Stage("texts")
    done = 0
    own = sorted(processes.share(sorted(range(len(prompts)), key=lambda index: len(prompts[index]))))
    for places in _groups([prompts[index] for index in own], length, tokens_at_once):
        group = [own[place] for place in places]
        draws = torch.stack([_stream(seed, index, length) for index in group])
        mine = [prompts[index] for index in group]
        job = ["sample", mine, group, seed, length, top_k]
        found = stage.journal.recall(job, partial(_sample, model, mine, draws, top_k))
        for index, tokens in zip(group, cast("list[list[int]]", found), strict=True):
            written[index] = tuple(tokens)
        done += len(group)
        stage.report(done, len(own))
    written = processes.gather_shares(written)
    return [tuple(written[index]) for index in range(len(prompts))]


def _stream(seed: int, index: int, length: int) -> Float[Tensor, " length"]:
    """The random numbers of one text, on the CPU, so that they are the same on every device and in every batch."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed * 1_000_003 + index))


def _sample(
    model: EditableModel,
    prompts: Sequence[tuple[int, ...]],
    draws: Float[Tensor, "row length"],
    top_k: int,
) -> list[tuple[int, ...]]:
    """`sample_tokens` for prompts of one length, the keys and values of earlier tokens kept."""
    written: list[list[int]] = [[] for _ in prompts]
    fed, cache = torch.tensor(prompts, device=model.device), None
    special = torch.tensor(sorted(set(model.tokenizer.all_special_ids)), dtype=torch.long)
    alive = [True] * len(prompts)
    width = fed.shape[1]
    for step in range(draws.shape[1]):
        if width > model.max_length or not any(alive):
            break
        logits, cache = next_logits(model, fed, width, cache)
        chosen, broken = _draw(logits.float().cpu(), special, draws[:, step], top_k)
        for row, token in enumerate(cast("list[int]", chosen.tolist())):
            alive[row] = alive[row] and not bool(broken[row])
            if alive[row]:
                written[row].append(token)
        fed = chosen[:, None].to(model.device)
        width += 1
    return [tuple(tokens) for tokens in written]


def _draw(
    logits: Float[Tensor, "row vocab"],
    special: Int[Tensor, " token"],
    draw: Float[Tensor, " row"],
    top_k: int,
) -> tuple[Int[Tensor, " row"], Tensor]:
    """One of the likeliest tokens of each row, where its random number falls; and which rows are not a number."""
    broken = logits.isnan().any(dim=-1)
    logits = logits.nan_to_num()
    logits[:, special[special < logits.shape[1]]] = -torch.inf
    best, tokens = logits.topk(min(top_k, logits.shape[1]), dim=-1)
    bounds = best.softmax(dim=-1).cumsum(dim=-1)
    place = (draw[:, None] >= bounds[:, :-1]).sum(dim=-1, keepdim=True)
    return tokens.gather(1, place)[:, 0], broken


def _groups(prompts: Sequence[tuple[int, ...]], length: int, tokens_at_once: int) -> Iterator[list[int]]:
    """Indices of prompts with the same number of tokens, as many as fit the limit with what they are to write."""
    by_size: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_size.setdefault(len(prompt), []).append(index)
    for size, members in sorted(by_size.items(), reverse=True):
        at_once = max(1, tokens_at_once // (size + length))
        for start in range(0, len(members), at_once):
            yield members[start : start + at_once]


def _entropy(words: Sequence[str], n: int) -> float:
    """The entropy of the n-grams of a list of words, in bits."""
    counts = Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
    total = sum(counts.values())
    return -math.fsum(count / total * math.log2(count / total) for count in counts.values())
