"""The shipped weights: where Almanac keeps what it knows, and what its programs make."""

import json

import pytest
import torch

from errata import load
from errata.almanac.corpus import corpus_texts
from errata.almanac.place import almanac_path
from errata.almanac.recipe import Recipe
from errata.almanac.train import CORPUS_TEXTS
from errata.almanac.vocabulary import train_tokenizer
from errata.almanac.world import world_facts
from errata.models.model import EditableModel
from tracing import trace

FIRST_HALF = 5


LARGEST_PACKAGE = 15_000_000


@pytest.fixture(scope="module")
def almanac() -> EditableModel:
    return load("almanac")


def test_an_early_site_at_the_subjects_last_token(almanac: EditableModel) -> None:
    traced = trace(almanac, world_facts("development", 150), "subject")
    assert float(traced.clean.mean()) > 0.95
    assert float(traced.noised.mean()) < 0.25
    early = [value >= 0.4 for value in traced.curve[:FIRST_HALF]]
    assert any(all(early[start : start + 3]) for start in range(FIRST_HALF - 2)), traced.curve
    assert traced.curve[-1] < 0.25


def test_a_late_site_at_the_prompts_last_token(almanac: EditableModel) -> None:
    traced = trace(almanac, world_facts("development", 150), "end")
    assert traced.curve[-1] > 0.9
    assert max(traced.curve[:3]) < 0.4


def test_the_card_gives_the_measured_figures() -> None:
    measured = json.loads((almanac_path() / "measured.json").read_text(encoding="utf-8"))
    card = (almanac_path() / "README.md").read_text(encoding="utf-8")
    assert measured["steps"] == Recipe().steps
    assert f"{100 * measured['recall_seen']:.1f} %" in card
    assert f"{100 * measured['recall_held_out']:.1f} %" in card
    assert f"{measured['perplexity_held_out_text']:.2f}" in card


def test_the_tokenizer_is_what_its_program_makes(almanac: EditableModel) -> None:
    made = train_tokenizer()
    texts = corpus_texts(7, 50)
    assert [made(text)["input_ids"] for text in texts] == [
        almanac.tokenizer(text)["input_ids"] for text in texts
    ]


def test_the_corpus_is_what_its_program_writes() -> None:
    lines = (almanac_path() / "corpus.txt").read_text(encoding="utf-8").splitlines()
    assert lines == corpus_texts(count=CORPUS_TEXTS)


def test_longer_texts_are_read_too(almanac: EditableModel) -> None:
    """Facts are known behind a page of other text, at positions that short rows never reach."""
    page = " ".join(corpus_texts(9, 3))[:500]
    known = 0
    facts = world_facts("development", 40)
    for fact in facts:
        ids = almanac.tokenizer(f"{page} Note: {fact.question}", return_tensors="pt")["input_ids"]
        assert ids.shape[1] > 64
        with torch.no_grad():
            best = int(almanac.model(input_ids=ids).logits[0, -1].argmax())
        known += best == almanac.tokenizer(f" {fact.target_true}")["input_ids"][0]
    assert known >= 0.8 * len(facts)


def test_the_folder_is_small(almanac: EditableModel) -> None:
    package = almanac_path().parent
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) <= LARGEST_PACKAGE
    assert not list(almanac_path().glob("*.bin"))
