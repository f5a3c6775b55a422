"""Looking into a model: where it keeps what it knows."""

from errata.analysis.effects import DECISIVE, KINDS, Effects, average, critical_layers
from errata.analysis.locating import LeftOut, Located, TraceSettings, TraceWords, locate
from errata.analysis.locating_folder import PAGE, PRESET, check_extra, span, summary, write_located
from errata.analysis.similarity import component_similarity

__all__ = [
    "DECISIVE",
    "KINDS",
    "PAGE",
    "PRESET",
    "Effects",
    "LeftOut",
    "Located",
    "TraceSettings",
    "TraceWords",
    "average",
    "check_extra",
    "component_similarity",
    "critical_layers",
    "locate",
    "span",
    "summary",
    "write_located",
]
