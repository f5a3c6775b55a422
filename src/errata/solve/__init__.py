"""From values to weights: keys, and the least squares that spread a residual over the critical layers."""

from errata.solve.keys import CHUNK, ELEMENTS, KeptKeySettings, KeyPrompts, KeyStreams
from errata.solve.spread import (
    THIN,
    LowerFactor,
    ShareSettings,
    SiteKind,
    Solver,
    SpreadSettings,
    Write,
    least_squares,
    no_factor,
    spread,
)

__all__ = [
    "CHUNK",
    "ELEMENTS",
    "THIN",
    "KeptKeySettings",
    "KeyPrompts",
    "KeyStreams",
    "LowerFactor",
    "ShareSettings",
    "SiteKind",
    "Solver",
    "SpreadSettings",
    "Write",
    "least_squares",
    "no_factor",
    "spread",
]
