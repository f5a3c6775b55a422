"""From values to weights: keys, and the least squares that spread a residual over the critical layers."""

from errata.solve.earlier import earlier_key_sum, key_sum
from errata.solve.keys import CHUNK, ELEMENTS, KeyPrompts, KeyStreams
from errata.solve.least_squares import THIN, LeastSquares, LowerFactor, least_squares, no_factor
from errata.solve.leverage import GaugedSolver, Solver, leverages, realized, share_of, weight_for
from errata.solve.settings import (
    KeySettings,
    LeastSquaresSettings,
    SiteKind,
    SpreadSettings,
    SpreadSite,
    check_weight,
)
from errata.solve.spread import Write, spread

__all__ = [
    "CHUNK",
    "ELEMENTS",
    "THIN",
    "GaugedSolver",
    "KeyPrompts",
    "KeySettings",
    "KeyStreams",
    "LeastSquares",
    "LeastSquaresSettings",
    "LowerFactor",
    "SiteKind",
    "Solver",
    "SpreadSettings",
    "SpreadSite",
    "Write",
    "check_weight",
    "earlier_key_sum",
    "key_sum",
    "least_squares",
    "leverages",
    "no_factor",
    "realized",
    "share_of",
    "spread",
    "weight_for",
]
