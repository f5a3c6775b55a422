"""Each lever alone: the shipped path with one of its levers taken away, and the published way with one put in."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast
from unittest import mock

import published
import torch
from jaxtyping import Float, Int
from shapes import Bench
from torch import Tensor

import errata
from errata.evaluation import generation, probabilities
from errata.models import EditableModel
from errata.moments import Limits, measure
from errata.passes import ChangesOf, PromptBatch, Resumed
from errata.values import Targets, descent, optimize_targets

Program = Callable[[], object]


def levers(name: str, bench: Bench, texts: list[str]) -> Mapping[str, Program]:
    """The programs to be timed beside the shipped one, by what is different about them."""
    makers: dict[str, Callable[[], dict[str, Program]]] = {
        "optimization": partial(_optimization, bench),
        "covariance": partial(_covariance, bench, texts),
        "evaluation": partial(_evaluation, bench),
    }
    return makers[name]() if name in makers else {}


# --- optimization ----------------------------------------------------------------------------------


def _optimization(bench: Bench) -> dict[str, Program]:
    def run(name: str = "of", instead: Callable[..., object] | None = None) -> Targets:
        with mock.patch.object(descent.Resumed, name, instead) if instead else nullcontext():
            return optimize_targets(bench.model, bench.facts, bench.contexts, bench.settings, relax=True)

    def one_by_one() -> None:
        for fact in bench.facts:
            optimize_targets(bench.model, [fact], bench.contexts, bench.settings, relax=True)

    real = Resumed.of
    return {
        "without resuming at the block": partial(run, instead=partial(_from_first_block, real)),
        "without resuming at the token": partial(run, instead=partial(_from_first_token, real)),
        "without either": partial(run, instead=partial(_whole, real)),
        "the edited block at every token": partial(run, instead=partial(_block_whole, real)),
        "one fact at a time": one_by_one,
        "head at every position that is run": partial(run, "logits_at", _whole_head),
    }


def _whole_head(
    resumed: Resumed, rows: Int[Tensor, " read"], positions: Int[Tensor, " read"], changes_of: ChangesOf
) -> Float[Tensor, "read vocab"]:
    """As `Resumed.logits_at`, with the logits of every position computed before those that are read are taken."""
    found: list[Tensor] = []
    order: list[Tensor] = []
    for part in resumed.parts:
        read, local = (rows[:, None] == part.rows[None, :]).nonzero().unbind(dim=1)
        with resumed.entered(part, changes_of(part)) as cache:
            ids = part.tokens.ids
            logits = resumed.model.model(
                input_ids=ids, past_key_values=cache, use_cache=cache is not None
            ).logits
        found.append(cast(Tensor, logits)[local, positions[read] - part.start[local]])
        order.append(read)
    return torch.cat(found)[torch.cat(order).argsort()]


def _block_whole(
    real: Callable[..., Resumed],
    model: EditableModel,
    batch: PromptBatch,
    entry: int,
    last: Tensor,
    inside: bool,
) -> Resumed:
    return real(model, batch, entry, last, inside=False)


def _from_first_block(
    real: Callable[..., Resumed],
    model: EditableModel,
    batch: PromptBatch,
    entry: int,
    last: Tensor,
    inside: bool,
) -> Resumed:
    return real(model, batch, 0, last, inside=False)


def _from_first_token(
    real: Callable[..., Resumed],
    model: EditableModel,
    batch: PromptBatch,
    entry: int,
    last: Tensor,
    inside: bool,
) -> Resumed:
    return real(model, replace(batch, lookup=torch.zeros_like(batch.lookup)), entry, last, inside=False)


def _whole(
    real: Callable[..., Resumed],
    model: EditableModel,
    batch: PromptBatch,
    entry: int,
    last: Tensor,
    inside: bool,
) -> Resumed:
    return real(model, replace(batch, lookup=torch.zeros_like(batch.lookup)), 0, last, inside=False)


# --- covariance ------------------------------------------------------------------------------------


def _covariance(bench: Bench, texts: list[str]) -> dict[str, Program]:
    model = bench.model
    sites = [model.site("ffn", layer) for layer in bench.layers]
    length = min(1024, model.max_length)

    def run(at_once: int | None = None) -> None:
        limits = Limits(samples=len(texts), max_length=length)
        limits = limits if at_once is None else replace(limits, batch_tokens=at_once)
        measure(model, sites, texts, limits)

    def a_pass_for_each() -> None:
        for site in sites:
            measure(model, [site], texts, Limits(samples=len(texts), max_length=length))

    def published_whole() -> None:
        for layer in bench.layers:
            published.second_moment(model, layer, texts, length, whole=True)

    return {
        "a pass for each layer": a_pass_for_each,
        "one text at a time": partial(run, at_once=1),
        "the published way, run through all blocks and the head": published_whole,
    }


# --- evaluation ------------------------------------------------------------------------------------


def _evaluation(bench: Bench) -> dict[str, Program]:
    model = bench.model

    def run(generate: bool = True, switch: Any = None) -> None:
        with switch() if switch else nullcontext():
            errata.evaluate(model, bench.facts, generate=generate, trustworthy=False)

    def one_by_one() -> None:
        for fact in bench.facts:
            errata.evaluate(model, [fact], trustworthy=False)

    return {
        "one fact at a time": one_by_one,
        "every text run, also beginnings of others": partial(run, switch=_own_hosts),
        "probabilities alone": partial(run, generate=False),
        "continuations one at a time": partial(run, switch=_alone),
    }


@contextmanager
def _own_hosts() -> Generator[None]:
    def own(texts: set[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[int, ...]]:
        return {text: text for text in texts}

    with mock.patch.object(probabilities, "_hosts", own):
        yield


@contextmanager
def _alone() -> Generator[None]:
    def alone(model: EditableModel, prompts: list[tuple[int, ...]], *_: object) -> list[list[int]]:
        return [[index] for index in range(len(prompts))]

    with mock.patch.object(generation, "_like_lengths", alone):
        yield
