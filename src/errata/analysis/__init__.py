"""Looking into a model: where it keeps what it knows."""

from errata.analysis.effects import DECISIVE, KINDS, Effects, average, critical_layers
from errata.analysis.leverage import BlockLeverage, LeverageProfile, leverage_profile
from errata.analysis.leverage_folder import write_leverage
from errata.analysis.locating import LeftOut, Located, TraceSettings, TraceWords, locate
from errata.analysis.locating_folder import PAGE, PRESET, check_extra, span, summary, write_located
from errata.analysis.similarity import component_similarity

__all__ = [
    "DECISIVE",
    "KINDS",
    "PAGE",
    "PRESET",
    "BlockLeverage",
    "Effects",
    "LeftOut",
    "LeverageProfile",
    "Located",
    "TraceSettings",
    "TraceWords",
    "average",
    "check_extra",
    "component_similarity",
    "critical_layers",
    "leverage_profile",
    "locate",
    "span",
    "summary",
    "write_leverage",
    "write_located",
]
