"""From values to weights: keys, and the least squares that spread a residual over the critical layers."""

from errata.solve.earlier import earlier_key_sum, key_sum
from errata.solve.keys import CHUNK, ELEMENTS, KeyPrompts, KeyStreams
from errata.solve.settings import KeySettings, LeastSquaresSettings, SiteKind, SpreadSettings, SpreadSite
from errata.solve.spread import (
    THIN,
    LowerFactor,
    Solver,
    Write,
    least_squares,
    no_factor,
    spread,
)

__all__ = [
    "CHUNK",
    "ELEMENTS",
    "THIN",
    "KeyPrompts",
    "KeySettings",
    "KeyStreams",
    "LeastSquaresSettings",
    "LowerFactor",
    "SiteKind",
    "Solver",
    "SpreadSettings",
    "SpreadSite",
    "Write",
    "earlier_key_sum",
    "key_sum",
    "least_squares",
    "no_factor",
    "spread",
]
