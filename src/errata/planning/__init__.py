"""One door for every edit: a request is settled and checked, shown as a plan, and run."""

from errata.planning.costs import Costs
from errata.planning.neighbors import Neighbors, find_neighbors
from errata.planning.plan import Plan, Settled, edit, prepare
from errata.planning.request import BesideWords, EditRequest, SourceWords, kept_values
from errata.planning.sizes import PROGRAM, Needs, Shape, known_shapes, needs_of, shape_of

__all__ = [
    "PROGRAM",
    "BesideWords",
    "Costs",
    "EditRequest",
    "Needs",
    "Neighbors",
    "Plan",
    "Settled",
    "Shape",
    "SourceWords",
    "edit",
    "find_neighbors",
    "kept_values",
    "known_shapes",
    "needs_of",
    "prepare",
    "shape_of",
]
