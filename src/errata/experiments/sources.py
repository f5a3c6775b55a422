"""Where an experiment's facts come from, and which of them a trial gets: seeded draws that share no fact."""

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from errata.errors import FactError
from errata.evaluation import read_texts
from errata.experiments.cells import EMBEDDED, Cell
from errata.facts import Fact, find_facts, read_facts


def facts_for(cell: Cell) -> list[Fact]:
    """The facts of a cell: all rows of a recipe get the same ones, and trials share none.

    Raises:
        FactError: there are fewer than the trials need.
    """
    trials, count = cell.request.sizes.trials, cell.edits
    if cell.data.startswith(f"{EMBEDDED}/"):
        from errata.almanac import world_facts

        drawn = world_facts(cell.data.partition("/")[2], count * trials, cell.request.seed)
    else:
        facts = _read(cell.data)
        if len(facts) < count * trials:
            raise FactError(
                f"{cell.data} holds {len(facts)} facts, and {trials} x {count} are needed. Ask for fewer with --edits."
            )
        drawn = random.Random(f"{cell.data}/{cell.request.seed}").sample(facts, count * trials)
    return list(drawn[cell.trial * count :][:count])


@cache
def _read(source: str) -> Sequence[Fact]:
    path = Path(source)
    return read_facts(path) if path.exists() else read_data_set(source)


def read_data_set(name: str) -> Sequence[Fact]:
    """The facts of a published data set by its id (docs/facts.md).

    Raises:
        FactError: it is not known, or cannot be had.
    """
    return read_facts(find_facts(Path(name)))


def me_ppl_50_texts(source: str) -> Sequence[str]:
    """The 50 texts of ME-PPL-50: from `me_ppl_50.json` beside the facts; none where it is not there."""
    beside = Path(source).parent / "me_ppl_50.json"
    return read_texts(beside) if beside.exists() else ()
