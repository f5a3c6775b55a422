"""One door for every edit: a request is settled and checked, shown as a plan, and run."""

from errata.planning.neighbors import Neighbors, find_neighbors
from errata.planning.sizes import PROGRAM, Needs, Shape, known_shapes, needs_of, shape_of
from errata.planning.stacking import edit_on, holding

__all__ = [
    "PROGRAM",
    "Needs",
    "Neighbors",
    "Shape",
    "edit_on",
    "find_neighbors",
    "holding",
    "known_shapes",
    "needs_of",
    "shape_of",
]
