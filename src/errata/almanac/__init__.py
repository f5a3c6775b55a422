"""Almanac, the model that ships with Errata: its world of facts, its corpus, its trainer and its weights."""

from errata.almanac.corpus import corpus_texts
from errata.almanac.place import almanac_path
from errata.almanac.references import world_references
from errata.almanac.tables import load_world
from errata.almanac.world import fact_of, training_facts, world_facts

__all__ = [
    "almanac_path",
    "corpus_texts",
    "fact_of",
    "load_world",
    "training_facts",
    "world_facts",
    "world_references",
]
