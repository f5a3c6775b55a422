"""The tables of Almanac's world."""

from collections import Counter

from errata.almanac.tables import load_world


def test_the_world_is_large_enough() -> None:
    world = load_world()
    assert len(world.entries) >= 5000
    assert len(world.subjects) >= 1200
    assert len(world.relations) >= 20
    assert min(len(entries) for entries in world.subjects.values()) >= 3


def test_every_relation_has_eight_templates_that_begin_in_different_ways() -> None:
    for relation in load_world().relations.values():
        assert len(set(relation.templates)) == 8, relation.name
        assert all(template.count("{}") == 1 for template in relation.templates), relation.name
        assert sum(len(template.partition("{}")[0].split()) >= 2 for template in relation.templates) >= 2, (
            relation.name
        )


def test_tables_hold_clean_text_and_no_statement_twice() -> None:
    world = load_world()
    for entry in world.entries:
        for text in (entry.subject, entry.object):
            assert text == text.strip()
            assert "{" not in text
            assert "  " not in text
    assert max(Counter((entry.subject, entry.relation.name) for entry in world.entries).values()) == 1
    for entry in world.entries:
        for template in entry.relation.templates:
            assert template.replace("{}", entry.subject).count(entry.subject) == 1, (entry.subject, template)
