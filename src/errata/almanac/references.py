"""What Almanac's world says about the subjects of each (relation, object): texts that consistency compares with."""

from __future__ import annotations

from errata.almanac.tables import load_world
from errata.almanac.world import biography_of
from errata.evaluation import References, fit_references


def world_references() -> References:
    """One short biography of each subject, by what is true of it; the statistics are of all of them.

    `References.save` writes them in the published layout.
    """
    texts: dict[tuple[str, str], list[str]] = {}
    for entry in load_world().entries:
        texts.setdefault((entry.relation.name, entry.object), []).append(biography_of(entry.subject))
    return fit_references(texts)
