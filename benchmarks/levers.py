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
from transformers import Cache

import errata
from errata import descent
from errata.evaluation import generation, probabilities
from errata.key_sums import Limits, measure
from errata.model import EditableModel, Tokens
from errata.prompts import PromptBatch
from errata.resume import Resumed
from errata.targets import Targets, optimize_targets

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
    def run(whole_head: bool = False, resumed: Callable[..., Resumed] | None = None) -> Targets:
        model = cast(EditableModel, WholeHead(**vars(bench.model))) if whole_head else bench.model
        patch = mock.patch.object(descent.Resumed, "of", resumed) if resumed else nullcontext()
        with patch:
            return optimize_targets(model, bench.facts, bench.contexts, bench.settings, relax=True)

    def one_by_one() -> None:
        for fact in bench.facts:
            optimize_targets(bench.model, [fact], bench.contexts, bench.settings, relax=True)

    real = Resumed.of
    return {
        "without resuming at the block": partial(run, resumed=partial(_from_first_block, real)),
        "without resuming at the token": partial(run, resumed=partial(_from_first_token, real)),
        "without either": partial(run, resumed=partial(_whole, real)),
        "one fact at a time": one_by_one,
        "head at every position that is run": partial(run, whole_head=True),
    }


class WholeHead(EditableModel):
    """A model that computes its logits at every position before it hands on those that are read."""

    def logits_at(
        self,
        tokens: Tokens,
        rows: Int[Tensor, " read"],
        positions: Int[Tensor, " read"],
        cache: Cache | None = None,
    ) -> Float[Tensor, "read vocab"]:
        """As the model's own."""
        ids = tokens.ids.to(self.device)
        logits = self.model(input_ids=ids, past_key_values=cache, use_cache=cache is not None).logits
        return cast(Tensor, logits)[rows, positions]


def _from_first_block(
    real: Callable[..., Resumed], model: EditableModel, batch: PromptBatch, entry: int, last: Tensor
) -> Resumed:
    return real(model, batch, 0, last)


def _from_first_token(
    real: Callable[..., Resumed], model: EditableModel, batch: PromptBatch, entry: int, last: Tensor
) -> Resumed:
    return real(model, replace(batch, lookup=torch.zeros_like(batch.lookup)), entry, last)


def _whole(
    real: Callable[..., Resumed], model: EditableModel, batch: PromptBatch, entry: int, last: Tensor
) -> Resumed:
    return real(model, replace(batch, lookup=torch.zeros_like(batch.lookup)), 0, last)


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
            errata.evaluate(model, bench.facts, generate=generate)

    def one_by_one() -> None:
        for fact in bench.facts:
            errata.evaluate(model, [fact])

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
