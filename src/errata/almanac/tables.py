"""The world as it stands in `world/`: a table of subjects per kind, and the relations with their templates."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import cast

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WORLD = Path(__file__).parent / "world"
RELATION_FILES = ("relations.toml", "invented.toml")


@dataclass(frozen=True, eq=False)
class Relation:
    """What a table's column says: the templates have one `{}` for the subject and end where the object goes."""

    name: str
    kind: str
    type: str
    templates: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Entry:
    """One true statement of the world: (subject, relation, object), numbered in the order of the tables."""

    number: int
    subject: str
    kind: str
    relation: Relation
    object: str

    def prompt(self, template: int) -> str:
        """The relation's template, filled in with the subject."""
        return self.relation.templates[template].replace("{}", self.subject)

    def statement(self, template: int) -> str:
        """The whole sentence."""
        return f"{self.prompt(template)} {self.object}."


@dataclass(frozen=True, eq=False)
class World:
    """All relations and entries; a subject is a name, whatever the number of tables that have it."""

    relations: Mapping[str, Relation]
    entries: tuple[Entry, ...]
    subjects: Mapping[str, tuple[Entry, ...]]
    by_relation: Mapping[str, tuple[Entry, ...]]

    def objects(self, relation: str) -> tuple[str, ...]:
        """The different objects of a relation, in the order of the tables."""
        return tuple(dict.fromkeys(entry.object for entry in self.by_relation[relation]))


@cache
def load_world() -> World:
    """Read every table; wrong tables are a mistake of ours and fail an assertion in the tests."""
    relations = {name: relation for file in RELATION_FILES for name, relation in read_relations(file)}
    entries: list[Entry] = []
    for kind in dict.fromkeys(relation.kind for relation in relations.values()):
        with (WORLD / f"{kind}.tsv").open(encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            for row in rows:
                for name, relation in relations.items():
                    if relation.kind == kind and row.get(name):
                        entries.append(Entry(len(entries), row["subject"], kind, relation, row[name]))
    return World(
        relations,
        tuple(entries),
        grouped(entries, [entry.subject for entry in entries]),
        grouped(entries, [entry.relation.name for entry in entries]),
    )


def read_relations(file: str) -> list[tuple[str, Relation]]:
    """The relations of one TOML file of the world."""
    tables = cast("dict[str, dict[str, object]]", tomllib.loads((WORLD / file).read_text(encoding="utf-8")))
    return [
        (
            name,
            Relation(
                name, str(table["kind"]), str(table["type"]), tuple(cast("list[str]", table["templates"]))
            ),
        )
        for name, table in tables.items()
    ]


def world_fingerprint() -> str:
    """A digest of all tables: two worlds with one digest are the same."""
    digest = hashlib.sha256()
    for file in sorted(WORLD.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def grouped(entries: Sequence[Entry], names: Sequence[str]) -> dict[str, tuple[Entry, ...]]:
    """The entries by name, both in their first order."""
    groups: dict[str, list[Entry]] = {}
    for entry, name in zip(entries, names, strict=True):
        groups.setdefault(name, []).append(entry)
    return {name: tuple(group) for name, group in groups.items()}


@dataclass(frozen=True)
class Filler:
    """Everyday sentences: openings, sentences with a type word, and patterns whose slots are filled from lists."""

    openings: tuple[str, ...]
    type_sentences: tuple[str, ...]
    definite_type_sentences: tuple[str, ...]
    definite_kinds: tuple[str, ...]
    patterns: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]

    def forms(self, kind: str) -> tuple[str, ...]:
        """The sentences that say what kind of thing a subject of this kind is."""
        return self.definite_type_sentences if kind in self.definite_kinds else self.type_sentences


@cache
def load_filler() -> Filler:
    """Read `world/filler.toml`."""
    table = cast("dict[str, object]", tomllib.loads((WORLD / "filler.toml").read_text(encoding="utf-8")))
    lists = {
        field.name: tuple(cast("list[str]", table[field.name]))
        for field in fields(Filler)
        if field.name != "words"
    }
    words = cast("dict[str, list[str]]", table["words"])
    return Filler(**lists, words={name: tuple(pool) for name, pool in words.items()})
