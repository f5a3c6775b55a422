"""Almanac's tokenizer: a byte-level BPE in GPT-2's style, trained on the world so that common objects are one token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from errata.almanac.corpus import corpus_texts, statement, type_sentence
from errata.almanac.split import seeded, seen_templates
from errata.almanac.tables import load_filler, load_world

VOCABULARY = 3000
END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"
END_OF_TEXT_ID, PADDING_ID = 0, 1  # special tokens come first
OBJECT_WEIGHT = 4  # how many more times an object is counted than the statement that has it
FILLER_TEXTS = 1000
MAX_LENGTH = 256


def vocabulary_texts() -> Iterator[str]:
    """What the tokenizer is trained on: a statement of every entry, its object some more times, and other text."""
    world, filler = load_world(), load_filler()
    for entry in world.entries:
        template = seeded("vocabulary", entry.subject, entry.relation.name).choice(seen_templates(entry))
        yield statement(entry, template).text
        yield f" {entry.object}" * OBJECT_WEIGHT
    for kind in dict.fromkeys(entry.kind for entry in world.entries):
        yield from (type_sentence("This", kind, form).text for form in filler.forms(kind))
    yield from filler.openings
    yield from corpus_texts(seed=99, count=FILLER_TEXTS)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer; the texts are the same every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(vocabulary_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token=PADDING,
        model_max_length=MAX_LENGTH,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that `train_tokenizer` made and `save_pretrained` wrote."""
    return cast("PreTrainedTokenizerFast", PreTrainedTokenizerFast.from_pretrained(folder))
