"""The facts that ship: valid, varied, and split so that nothing is asked that is edited."""

from collections import Counter

import pytest

from errata.calibrate.familiar import familiar_facts, plain_texts
from errata.calibrate.pool import find_pool
from errata.calibrate.request import CalibrationRequest
from errata.evaluation import probabilities
from errata.facts import contradictions, relation_of, wording
from families import tiny_model


def test_facts_are_valid_and_of_many_relations() -> None:
    facts = familiar_facts()
    relations = Counter(relation_of(fact) for fact in facts)
    assert len(facts) >= 150
    assert len(relations) >= 15
    assert min(relations.values()) >= 6
    assert not list(contradictions(facts))
    for fact in facts:
        objects = {other.target_true for other in facts if other.relation_id == fact.relation_id}
        assert fact.target_new in objects - {fact.target_true}
        assert len(fact.paraphrase_prompts) == 2
        for template in fact.paraphrase_prompts:
            assert template.count(wording.SLOT) <= 1
            assert fact.subject in wording.fill(template, fact.subject)


def test_the_seed_chooses_new_targets() -> None:
    assert familiar_facts(1) == familiar_facts(1)
    assert familiar_facts(0) != familiar_facts(1)


def test_plain_texts_are_there_and_different() -> None:
    texts = plain_texts()
    assert len(set(texts)) == len(texts) >= 10
    assert all(len(text.split()) >= 30 for text in texts)


def test_the_pool_is_split_by_subject_and_asks_about_nothing_that_is_edited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a model that knows everything."""
    monkeypatch.setattr(probabilities.Answer, "correct", True)
    facts = familiar_facts()
    request = CalibrationRequest("memit", development=15, held_out=10)
    pool = find_pool(tiny_model("gpt2"), facts, request, lambda stage, done, total: None)
    parts = [one.fact for one in pool.development], [one.fact for one in pool.held_out]
    assert tuple(map(len, parts)) == (15, 10)
    subjects = [{fact.subject for fact in part} for part in parts]
    assert not subjects[0] & subjects[1]
    assert len({relation_of(fact) for fact in parts[0]}) >= 8
    for part, own in zip((pool.development, pool.held_out), subjects, strict=True):
        for one in part:
            asked = [probe.prompt for probe in one.fact.neighborhood]
            assert asked
            others = {fact.question: fact.subject for fact in facts}
            assert not {others[prompt] for prompt in asked} & own
            assert one.statements
            preserved = {wording.fill(template, one.fact.subject) for template in one.fact.preserve_prompts}
            assert not preserved & set(one.statements)
            assert one.fact.question not in one.statements
