"""How likely answers are, teacher-forced: many prompts with many answers, in as few forward passes as they need.

    log P(t_1..t_T | x) = (1/T) sum_tau log P(t_tau | x t_<tau)                                (METHODS "Evaluation")

Every text is run once. A text that another one begins with is not run at all: in a causal model the longer one gives
the shorter one's outputs too (a prompt with a one-token answer is the beginning of the same prompt with any other).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from errata.errors import FactError
from errata.evaluation.journal import Journal
from errata.evaluation.questions import Key, Pair
from errata.models import EditableModel
from errata.passes import TOKENS_IN_CACHE, EncodedText, encode_text, like_lengths, pad
from errata.results import NO_TOKEN, Answer
from errata.runtime import Progress, processes, silent

TOKENS_AT_ONCE = 8192
"""Tokens of a batch, padding included."""
LOGITS_AT_ONCE = 2**25
"""Logits of a batch: bounds memory where the vocabulary is large."""


@dataclass(frozen=True)
class Reading:
    """One answer to one prompt: the text in which it is read, and the places and tokens of it."""

    key: Key
    text: EncodedText
    host: tuple[int, ...]
    """The ids that are run: those of the text, or longer ones that begin with them."""


@dataclass(frozen=True)
class Plan:
    """What has to be run to know every answer: made once, and run before and after an edit."""

    readings: tuple[Reading, ...]

    @property
    def rows(self) -> dict[tuple[int, ...], list[Reading]]:
        """The ids that are run, each with what is read in it."""
        rows: dict[tuple[int, ...], list[Reading]] = {}
        for reading in self.readings:
            rows.setdefault(reading.host, []).append(reading)
        return rows


def make_plan(model: EditableModel, pairs: Sequence[Pair]) -> Plan:
    """Tokenise every pair that differs and find which texts need to be run.

    Raises:
        PromptTooLong: a prompt with its answer does not fit the model; the message names the fact and the field.
        EmptyTarget: nothing is left of an answer after tokenisation.
    """
    texts: dict[Key, EncodedText] = {}
    for pair in pairs:
        if pair.key not in texts:
            texts[pair.key] = encode_at(model, pair.prompt, pair.target, pair.where, pair.join)
    hosts = _hosts({text.ids for text in texts.values()})
    return Plan(tuple(Reading(key, text, hosts[text.ids]) for key, text in texts.items()))


def measure(
    model: EditableModel,
    plan: Plan,
    stage: str = "probabilities",
    on_progress: Progress = silent,
    tokens_at_once: int = TOKENS_AT_ONCE,
    journal: Journal | None = None,
) -> dict[Key, Answer]:
    """What the model, as it stands, thinks of every answer of the plan, by prompt and answer."""
    journal = journal or Journal()
    answers: dict[Key, Answer] = {}
    rows = plan.rows
    rows = {ids: rows[ids] for ids in processes.share(sorted(rows))} if processes.count() > 1 else rows
    done = 0
    for ids in _batches(model, rows, tokens_at_once, max(1, LOGITS_AT_ONCE // len(model.tokenizer))):
        readings = [rows[row] for row in ids]
        job = [
            ids,
            [[(reading.text.target, list(reading.text.predicted_at)) for reading in row] for row in readings],
        ]
        find = partial(_measure_batch, model, ids, readings)
        found = cast("list[tuple[list[float], list[int]]]", journal.recall(job, find))
        flat = [reading for row in readings for reading in row]
        for reading, (log_p, predicted) in zip(flat, found, strict=True):
            answers[reading.key] = _answer(model, reading, log_p, predicted)
        done += len(ids)
        on_progress(stage, done, len(rows))
    return answers if processes.count() == 1 else _of_all(answers)


def _of_all(answers: Mapping[Key, Answer]) -> dict[Key, Answer]:
    """The answers that all processes have found."""
    own: list[list[Any]] = [[list(key), *vars(answer).values()] for key, answer in answers.items()]
    return {
        cast("Key", tuple(key)): Answer(text, tuple(tokens), tuple(values), tuple(predicted), said)
        for part in processes.gather(own)
        for key, text, tokens, values, predicted, said in part
    }


def encode_at(
    model: EditableModel, prompt: str, target: str | None, where: str, join: str | None = None
) -> EncodedText:
    """`encode_text`, with the fact and the field named in what it raises."""
    try:
        return encode_text(model, prompt, target, join)
    except FactError as error:
        raise type(error)(f"{where}: {error}") from None


def _hosts(texts: set[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """For each text the longest chain's end among those that begin with it: itself, if there is none.

    In lexicographic order a text that others begin with stands directly before one of them.
    """
    hosts: dict[tuple[int, ...], tuple[int, ...]] = {}
    following: tuple[int, ...] = ()
    for ids in sorted(texts, reverse=True):
        hosts[ids] = hosts[following] if following[: len(ids)] == ids else ids
        following = ids
    return hosts


def _batches(
    model: EditableModel,
    rows: Mapping[tuple[int, ...], Sequence[Reading]],
    tokens_at_once: int,
    reads_at_once: int,
) -> Iterator[list[tuple[int, ...]]]:
    """Rows in groups of like length, longest first, within both limits (one row at least)."""
    order = sorted(rows)
    most = min(tokens_at_once, TOKENS_IN_CACHE.get(model.device.type, tokens_at_once))
    for indices in like_lengths([len(ids) for ids in order], most, model.device):
        group: list[tuple[int, ...]] = []
        reads = 0
        for ids in (order[index] for index in indices):
            wanted = sum(len(reading.text.target) for reading in rows[ids])
            if group and reads + wanted > reads_at_once:
                yield group
                group, reads = [], 0
            group.append(ids)
            reads += wanted
        yield group


def _measure_batch(
    model: EditableModel, ids: Sequence[tuple[int, ...]], readings: Sequence[Sequence[Reading]]
) -> list[tuple[list[float], list[int]]]:
    """One forward pass: of each reading the log P of its tokens, and the likeliest token at each of their places.

    The head reads each place once, whatever the number of answers read there.
    """
    flat = [(row, reading) for row, several in enumerate(readings) for reading in several]
    places: dict[tuple[int, int], int] = {}
    for row, reading in flat:
        for position in reading.text.predicted_at:
            places.setdefault((row, position), len(places))
    rows, positions = torch.tensor(list(places)).unbind(dim=1)
    with torch.no_grad():
        log_p = log_probabilities(model.logits_at(pad(ids, model), rows, positions))
    best, tokens = log_p.max(dim=-1)
    predicted = cast("list[int]", torch.where(best.isnan(), NO_TOKEN, tokens).tolist())
    at = [[places[row, position] for position in reading.text.predicted_at] for row, reading in flat]
    chosen = [token for _, reading in flat for token in reading.text.target]
    values = iter(cast("list[float]", log_p[[place for each in at for place in each], chosen].tolist()))
    return [([next(values) for _ in each], [predicted[place] for place in each]) for each in at]


def _answer(
    model: EditableModel, reading: Reading, log_probabilities: Sequence[float], predicted: Sequence[int]
) -> Answer:
    return Answer(
        text=reading.key[1],
        tokens=reading.text.target,
        log_probabilities=tuple(log_probabilities),
        predicted=tuple(predicted),
        predicted_text=decode(model, predicted),
    )


def log_probabilities(logits: Float[Tensor, "read vocab"]) -> Float[Tensor, "read vocab"]:
    """log softmax, in float32 or the logits' wider dtype."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(wide).log_softmax(dim=-1)


def decode(model: EditableModel, tokens: Sequence[int]) -> str:
    """Tokens as text, without white space around it and without tidying of spaces inside."""
    there = [token for token in tokens if token != NO_TOKEN]
    text = model.tokenizer.decode(there, clean_up_tokenization_spaces=False)
    return str(text).strip()
