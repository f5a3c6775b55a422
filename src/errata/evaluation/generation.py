"""What a model writes by itself: greedy continuations, each token fed back in (free-running).

Prompts of like length run together, as far as the shortest of them reaches; from there on every row is fed one token
at a time, its prompt's next one or its own. So nothing is padded and no row sees that it is not alone.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

import torch

from errata.evaluation.journal import Stage
from errata.evaluation.probabilities import TOKENS_AT_ONCE, decode, encode_at
from errata.evaluation.questions import Sheet
from errata.models import EditableModel
from errata.passes import PASS_TOKENS, PASS_TOKENS_ELSEWHERE, next_logits
from errata.results import Continuation
from errata.runtime import processes

LENGTH = 12
"""Tokens that are generated where the sentence does not end before, so that a person can read what the model says."""
BEYOND = 2
"""Tokens that are generated beyond the target's number, to see whether the answer ends with the target."""
SENTENCE_END = re.compile(r"""[.!?]["')\]]*(?=\s)|\n""")


def continue_texts(model: EditableModel, prompts: Sequence[str], length: int = LENGTH) -> list[str]:
    """What the model says after each prompt, up to the end of the sentence, in at most `length` tokens.

    Raises:
        PromptTooLong: a prompt does not fit the model.
    """
    ids = [encode_at(model, prompt, None, "Prompt").ids for prompt in prompts]
    written = greedy(model, ids, [length] * len(ids), [0] * len(ids))
    return [_sentence(model, tokens) for tokens in written]


def continuations(
    model: EditableModel,
    sheets: Sequence[Sheet],
    stage: Stage | None = None,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> list[Continuation]:
    """What the model says after the prompt of every fact, in two tokens more at least than target_new has there.

    Raises:
        PromptTooLong: a prompt with its target does not fit the model; the message names the fact.
    """
    prompts: list[tuple[int, ...]] = []
    targets: list[tuple[int, ...]] = []
    for sheet in sheets:
        prompt, target = _asked(model, sheet)
        prompts.append(prompt)
        targets.append(target)
    least = [len(target) + BEYOND for target in targets]
    most = [max(LENGTH, length) for length in least]
    written = greedy(model, prompts, most, least, stage, tokens_at_once)
    return [
        Continuation(
            prompt=sheet.fact.question,
            target=sheet.fact.target_new,
            target_tokens=target,
            tokens=tokens[: len(target)],
            answer=decode(model, tokens[: len(target)]),
            text=_sentence(model, tokens),
            whole=decode(model, tokens),
        )
        for sheet, target, tokens in zip(sheets, targets, written, strict=True)
    ]


def _asked(model: EditableModel, sheet: Sheet) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of the fact's prompt, which the model continues, and those of its target behind it.

    A space at the prompt's end is a part of the target's first token, so it is left to the model to write it.
    """
    fact, where = sheet.fact, f"{sheet.name}, prompt"
    text = encode_at(model, fact.question, fact.target_new, where, fact.join)
    alone = encode_at(model, fact.question, None, where).ids
    before = text.ids[: text.predicted_at.start + 1]
    if fact.question[-1:].isspace() and alone[: len(before)] == before:
        alone = before
    return alone, text.target


def greedy(
    model: EditableModel,
    prompts: Sequence[tuple[int, ...]],
    most: Sequence[int],
    least: Sequence[int] | None = None,
    stage: Stage | None = None,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> list[tuple[int, ...]]:
    """The likeliest token after each prompt, and again after that, `most` times.

    With `least`, a text of so many tokens ends with its sentence. Any text ends where the model ends it, where the
    context is full, and where the output is not a number.
    """
    written: dict[int, tuple[int, ...]] = {}
    least = most if least is None else least
    stage = stage or Stage("generation")
    done = 0
    own = sorted(processes.share(sorted(range(len(prompts)), key=lambda index: len(prompts[index]))))
    for places in _like_lengths(model, [prompts[i] for i in own], [most[i] for i in own], tokens_at_once):
        group = [own[place] for place in places]
        limits = [(least[index], most[index]) for index in group]
        mine = [prompts[index] for index in group]
        found = stage.journal.recall(["greedy", mine, limits], partial(_greedy, model, mine, limits))
        for index, tokens in zip(group, cast("list[list[int]]", found), strict=True):
            written[index] = tuple(tokens)
        done += len(group)
        stage.report(done, len(own))
    written = processes.gather_shares(written)
    return [tuple(written[index]) for index in range(len(prompts))]


def _greedy(
    model: EditableModel, prompts: Sequence[tuple[int, ...]], limits: Sequence[tuple[int, int]]
) -> list[tuple[int, ...]]:
    """`greedy` for prompts of like length, the keys and values of earlier tokens kept."""
    ends: set[int] = set(model.tokenizer.all_special_ids)
    written: list[list[int]] = [[] for _ in prompts]
    writing = {row for row, (_, most) in enumerate(limits) if most > 0}
    width, cache = min(map(len, prompts)), None
    fed = torch.tensor([prompt[:width] for prompt in prompts], device=model.device)
    while writing and width <= model.max_length:
        logits, cache = next_logits(model, fed, width, cache)
        best, chosen = logits.max(dim=-1)
        broken = cast("list[bool]", best.isnan().tolist())
        tokens = cast("list[int]", chosen.tolist())
        for row in sorted(writing):
            if width < len(prompts[row]):
                tokens[row] = prompts[row][width]
                continue
            if broken[row] or tokens[row] in ends:
                writing.remove(row)
                continue
            written[row].append(tokens[row])
            least, most = limits[row]
            size = len(written[row])
            if size == most or (size >= least and SENTENCE_END.search(decode(model, written[row]))):
                writing.remove(row)
        fed = torch.tensor(tokens, device=model.device)[:, None]
        width += 1
    return [tuple(tokens) for tokens in written]


def _like_lengths(
    model: EditableModel, prompts: Sequence[tuple[int, ...]], most: Sequence[int], tokens_at_once: int
) -> Iterator[list[int]]:
    """Indices of prompts to be run together: about equally long, and within the limit with what they are to write.

    Prompts of one length are; groups next to each other are joined where that saves more passes than it costs tokens.
    """
    by_size: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_size.setdefault(len(prompt), []).append(index)
    joined: list[list[int]] = []
    fixed = PASS_TOKENS.get(model.device.type, PASS_TOKENS_ELSEWHERE)
    for size in sorted(by_size, reverse=True):
        both = [*joined[-1], *by_size[size]] if joined else []
        apart = [_cost(group, prompts, most, fixed) for group in (*joined[-1:], by_size[size])]
        if both and _cost(both, prompts, most, fixed) < sum(apart):
            joined[-1] = both
        else:
            joined.append(by_size[size])
    for members in joined:
        at_once = max(1, tokens_at_once // max(len(prompts[index]) + most[index] for index in members))
        for start in range(0, len(members), at_once):
            yield members[start : start + at_once]


def _cost(members: Sequence[int], prompts: Sequence[tuple[int, ...]], most: Sequence[int], fixed: int) -> int:
    """About what it takes to run these together, in tokens; `fixed` is what a pass costs whatever is in it."""
    first = min(len(prompts[index]) for index in members)
    steps = max(len(prompts[index]) + most[index] for index in members) - first
    return fixed + len(members) * first + steps * (fixed + len(members))


def _sentence(model: EditableModel, tokens: Sequence[int]) -> str:
    """The tokens as text, up to the end of the first sentence."""
    text = decode(model, tokens)
    end = SENTENCE_END.search(text)
    return text if end is None else text[: end.end()].strip()
