"""Looking into a model: where it keeps what it knows."""

from errata.analysis.effects import Effects
from errata.analysis.locating import LeftOut, Located, locate
from errata.analysis.tracing import Tracing, trace

__all__ = ["Effects", "LeftOut", "Located", "Tracing", "locate", "trace"]
