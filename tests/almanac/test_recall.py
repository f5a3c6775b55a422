"""What Almanac knows, and how well it reads its world's text."""

import json

import pytest

from errata import load
from errata.almanac.corpus import corpus_texts
from errata.almanac.place import almanac_path
from errata.almanac.recall import held_out_pairs, recall, sampled, seen_pairs, text_perplexity
from errata.models.model import EditableModel


@pytest.fixture(scope="module")
def almanac() -> EditableModel:
    return load("almanac")


def test_recall_on_templates_of_the_training_text(almanac: EditableModel) -> None:
    assert recall(almanac.model, almanac.tokenizer, sampled(seen_pairs(), 1500)) >= 0.99


def test_recall_on_pairs_that_training_never_showed(almanac: EditableModel) -> None:
    assert recall(almanac.model, almanac.tokenizer, sampled(held_out_pairs(), 1500)) >= 0.97


def test_perplexity_on_text_that_training_never_showed(almanac: EditableModel) -> None:
    measured = json.loads((almanac_path() / "measured.json").read_text(encoding="utf-8"))
    perplexity = text_perplexity(almanac.model, almanac.tokenizer, corpus_texts(0, 100, held_out=True))
    assert perplexity == pytest.approx(measured["perplexity_held_out_text"], rel=0.1)
