"""The text that Almanac reads: statements alone, behind openings and in short biographies, and everyday sentences."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from errata.almanac.split import held_out_templates, seen_templates
from errata.almanac.tables import Entry, load_filler, load_world

Item = TypeVar("Item")

TRAINING_SEED = 11
HELD_OUT_FILLER = 20  # one in so many everyday sentences is in no training text
BIOGRAPHY_FACTS = 5

SHARES = {"single": 32, "opened": 16, "biography": 28, "mixed": 14, "framed": 3, "filler": 5, "type": 2}
"""How often each kind of document is drawn, out of 100."""


@dataclass(frozen=True)
class Sentence:
    """A sentence, and where in it the subject and the object stand (in characters), if there are any."""

    text: str
    subject: tuple[int, int] | None = None
    object: tuple[int, int] | None = None


Document = Sequence[Sentence]
Pair = tuple[Entry, int]


@cache
def statement(entry: Entry, template: int) -> Sentence:
    """An entry in the words of one of its relation's templates."""
    start = entry.relation.templates[template].index("{}")
    prompt = entry.prompt(template)
    end = len(prompt) + 1 + len(entry.object)
    return Sentence(entry.statement(template), (start, start + len(entry.subject)), (len(prompt) + 1, end))


def type_sentence(subject: str, kind: str, form: str) -> Sentence:
    """What kind of thing a subject is."""
    article = "an" if kind[0] in "aeiou" else "a"
    start = form.format(subject="\0", article=article, kind=kind).index("\0")
    return Sentence(form.format(subject=subject, article=article, kind=kind), (start, start + len(subject)))


def everyday(rng: random.Random, held_out: bool) -> Sentence:
    """One sentence of filler, from the part that training shows or from the part that it does not."""
    filler = load_filler()
    while True:
        words = {slot: rng.choice(pool) for slot, pool in filler.words.items()}
        text = rng.choice(filler.patterns).format(**words)
        if (zlib.crc32(text.encode()) % HELD_OUT_FILLER == 0) == held_out:
            return Sentence(text)


def documents(seed: int, held_out: bool = False) -> Iterator[Document]:
    """Documents without end: everything that training may show, or (`held_out`) what it never shows.

    Entries and subjects come in shuffled rounds, so that after any time each has been told about equally often.
    """
    rng = random.Random(seed)
    world = load_world()
    choose = held_out_templates if held_out else seen_templates
    pairs = rounds(rng, [(entry, template) for entry in world.entries for template in sorted(choose(entry))])
    subjects = rounds(rng, list(world.subjects))
    writers: dict[str, Callable[[], Document]] = {
        "single": lambda: [statement(*next(pairs))],
        "opened": lambda: opened(rng, pairs),
        "biography": lambda: biography(rng, next(subjects), choose),
        "mixed": lambda: [statement(*next(pairs)) for _ in range(rng.randint(2, 4))],
        "framed": lambda: [everyday(rng, held_out), statement(*next(pairs)), everyday(rng, held_out)],
        "filler": lambda: [everyday(rng, held_out) for _ in range(rng.randint(2, 4))],
        "type": lambda: [typed(rng, next(subjects))],
    }
    kinds, weights = list(SHARES), list(SHARES.values())
    while True:
        yield writers[rng.choices(kinds, weights)[0]]()


def opened(rng: random.Random, pairs: Iterator[Pair]) -> Document:
    """One or two statements behind an opening."""
    opening = Sentence(rng.choice(load_filler().openings))
    return [opening, *(statement(*next(pairs)) for _ in range(rng.randint(1, 2)))]


def biography(
    rng: random.Random, subject: str, choose: Callable[[Entry], Sequence[int] | frozenset[int]]
) -> Document:
    """Several facts of one subject in random order, half the time behind a sentence that says what it is."""
    entries = [entry for entry in load_world().subjects[subject] if choose(entry)]
    chosen = rng.sample(entries, min(BIOGRAPHY_FACTS, len(entries)))
    facts = [statement(entry, rng.choice(sorted(choose(entry)))) for entry in chosen]
    return [typed(rng, subject), *facts] if rng.random() < 0.5 or not facts else facts


def typed(rng: random.Random, subject: str) -> Sentence:
    """What kind of thing a subject is, in one of the forms."""
    kind = load_world().subjects[subject][0].kind
    return type_sentence(subject, kind, rng.choice(load_filler().forms(kind)))


def rounds(rng: random.Random, items: list[Item]) -> Iterator[Item]:
    """The items without end, shuffled anew each round."""
    while True:
        order = list(items)
        rng.shuffle(order)
        yield from order


def paragraph(document: Document) -> str:
    """A document as text."""
    return " ".join(sentence.text for sentence in document)


def corpus_texts(seed: int = 0, count: int = 1000, held_out: bool = False) -> list[str]:
    """`count` short paragraphs of the world's text; `held_out` for statements and sentences that training never showed.

    The paragraphs are what covariances of Almanac are measured on.
    """
    stream = documents(TRAINING_SEED + 1 + seed, held_out)
    return [paragraph([*next(stream), *next(stream), *next(stream)]) for _ in range(count)]
