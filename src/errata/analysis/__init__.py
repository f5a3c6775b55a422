"""Looking into a model: where it keeps what it knows."""

from errata.analysis.tracing import Tracing, trace

__all__ = ["Tracing", "trace"]
