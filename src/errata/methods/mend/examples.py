"""What an editor is trained on: facts to write at once, questions that shall follow them, and questions that shall not.

Which facts are drawn at a step, and which of their questions, follows from the seed and the step's number alone.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from errata.errors import FactError
from errata.facts import Fact, Probe
from errata.models import EditableModel
from errata.passes import EncodedText, encode_text

Kept = Literal["neighborhood", "unrelated", "same_subject"]
Asked = tuple[str, str | None]
"""A prompt, and the answer behind it (None where none is known: the prompt is then read at its end)."""


@dataclass(frozen=True)
class Example:
    """A fact with its questions."""

    fact: Fact
    written: tuple[Asked, ...]
    """What the target shall follow: the paraphrases, or the fact's own prompt where it has none."""
    kept: tuple[Asked, ...]
    """What the model shall answer as before."""

    @classmethod
    def of(cls, fact: Fact, kept: Sequence[Kept]) -> "Example":
        """The example of a fact; `kept` says which of its prompts are to stay as they are."""
        prompts = fact.paraphrase_prompts or (fact.question,)
        groups: dict[Kept, tuple[Asked, ...]] = {
            "neighborhood": tuple(
                (item.prompt, item.target) if isinstance(item, Probe) else (item, fact.target_true)
                for item in fact.neighborhood_prompts
            ),
            "unrelated": tuple((probe.prompt, probe.target) for probe in fact.unrelated_prompts),
            "same_subject": tuple((probe.prompt, probe.target) for probe in fact.same_subject_prompts),
        }
        written = tuple((prompt, fact.target_new) for prompt in prompts)
        return cls(fact, written, tuple(asked for group in kept for asked in groups[group]))


@dataclass(frozen=True)
class Draw:
    """The texts of one edit in training."""

    facts: tuple[EncodedText, ...]
    written: tuple[EncodedText, ...]
    kept: tuple[EncodedText, ...]


def encode_example(model: EditableModel, example: Example) -> None:
    """Tokenise every text of an example once.

    Raises:
        FactError: one does not fit the model; the message names the fact's subject.
    """
    try:
        for asked in ((example.fact.question, example.fact.target_new), *example.written, *example.kept):
            encode_text(model, *asked, join=example.fact.join)
    except FactError as error:
        raise type(error)(f"Fact about {example.fact.subject!r}: {error}") from None


def draw(
    model: EditableModel,
    examples: Sequence[Example],
    at_once: Sequence[int],
    written: int,
    kept: int,
    rng: random.Random,
) -> Draw:
    """Some examples (one of the numbers `at_once`), up to `written` and `kept` questions of each.

    No two of them ask the same, and no question that shall keep its answer is about a subject that is written,
    unless it is one of that very fact's own.
    """
    count = min(rng.choice(list(at_once)), len(examples))
    chosen: dict[tuple[str, str], Example] = {}
    for example in rng.sample(list(examples), count):
        chosen.setdefault(example.fact.key, example)
    subjects = {example.fact.subject for example in chosen.values()}
    asked: list[tuple[Asked, str | None]] = []
    staying: list[tuple[Asked, str | None]] = []
    for example in chosen.values():
        join = example.fact.join
        asked += [(one, join) for one in rng.sample(example.written, min(written, len(example.written)))]
        others = subjects - {example.fact.subject}
        usable = [one for one in example.kept if not any(subject in one[0] for subject in others)]
        staying += [(one, join) for one in rng.sample(usable, min(kept, len(usable)))]
    return Draw(
        facts=tuple(
            encode_text(model, one.question, one.target_new, one.join)
            for one in (example.fact for example in chosen.values())
        ),
        written=tuple(encode_text(model, *one, join=join) for one, join in asked),
        kept=tuple(encode_text(model, *one, join=join) for one, join in staying),
    )


def split(
    examples: Sequence[Example], validation: int, rng: random.Random
) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and about `validation` to judge by; no subject is in both.

    Raises:
        FactError: there are too few subjects.
    """
    subjects = list(dict.fromkeys(example.fact.subject for example in examples))
    rng.shuffle(subjects)
    rank = {subject: number for number, subject in enumerate(subjects)}
    ordered = sorted(examples, key=lambda example: rank[example.fact.subject])
    judged = {example.fact.subject for example in ordered[:validation]}
    training = [example for example in examples if example.fact.subject not in judged]
    if not training or not judged:
        raise FactError(
            f"{len(examples)} facts about {len(subjects)} subjects are too few to train on some of them and judge by "
            f"{validation} others. Give more facts, or a smaller 'validation'."
        )
    return training, [example for example in examples if example.fact.subject in judged]
