"""Invented tables are what their program writes."""

import random

from errata.almanac import invent
from errata.almanac.tables import WORLD


def test_invented_tables_are_what_their_program_writes() -> None:
    rng = random.Random(invent.SEED)
    firms = invent.companies(rng)
    persons = invent.people(rng, [firm[0] for firm in firms[: invent.EMPLOYERS]])
    for name, rows in (("company", firms), ("person", persons)):
        lines = (WORLD / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
        assert [line.split("\t") for line in lines[1:]] == rows
