"""The text that Almanac is trained on."""

import random
from itertools import islice

from errata.almanac.corpus import corpus_texts, documents, everyday, statement, type_sentence
from errata.almanac.recall import held_out_pairs, seen_pairs
from errata.almanac.tables import load_filler, load_world


def test_training_shows_no_held_out_statement_and_no_held_out_filler() -> None:
    hidden = {statement(*pair).text for pair in held_out_pairs()}
    shown = {sentence.text for document in islice(documents(11), 5_000) for sentence in document}
    assert shown.isdisjoint(hidden)
    kept = {sentence.text for document in islice(documents(3, held_out=True), 1_000) for sentence in document}
    filler = load_filler()
    asides = {text for text in kept - hidden if text not in filler.openings}
    types = {
        type_sentence(subject, entries[0].kind, form).text
        for subject, entries in load_world().subjects.items()
        for form in filler.forms(entries[0].kind)
    }
    assert shown.isdisjoint(asides - types)


def test_statements_say_where_subject_and_object_stand() -> None:
    for entry, template in random.Random(0).sample(seen_pairs(), 500):
        sentence = statement(entry, template)
        assert sentence.subject is not None
        assert sentence.object is not None
        assert sentence.text[slice(*sentence.subject)] == entry.subject
        assert sentence.text[slice(*sentence.object)] == entry.object
    known = type_sentence("lion", "animal", "The {subject} is {article} {kind}.")
    assert known.text == "The lion is an animal."
    assert known.subject == (4, 8)


def test_corpus_texts_follow_their_seed() -> None:
    assert corpus_texts(4, 20) == corpus_texts(4, 20)
    assert corpus_texts(4, 20) != corpus_texts(5, 20)
    assert all(text.strip() == text and "\n" not in text for text in corpus_texts(0, 200))


def test_everyday_sentences_fill_every_slot() -> None:
    rng = random.Random(0)
    assert not any("{" in everyday(rng, held_out).text for held_out in (False, True) for _ in range(200))
