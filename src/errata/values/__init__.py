"""The Optimization stage: the value v* that makes a model say a fact. Losses, descent, finished values on disk."""

from errata.values.descent import Outcome, Trace, place_path
from errata.values.losses import Surprisal, by_context, divergence
from errata.values.settings import Place, ValueSettings, ValueSite
from errata.values.store import TargetStore
from errata.values.surprisal import TargetMeasure, measure_targets
from errata.values.targets import NOT_FINITE, NOT_FOUND, Targets, optimize_targets, rows_for

__all__ = [
    "NOT_FINITE",
    "NOT_FOUND",
    "Outcome",
    "Place",
    "Surprisal",
    "TargetMeasure",
    "TargetStore",
    "Targets",
    "Trace",
    "ValueSettings",
    "ValueSite",
    "by_context",
    "divergence",
    "measure_targets",
    "optimize_targets",
    "place_path",
    "rows_for",
]
