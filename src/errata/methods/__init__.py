"""The methods, one file each over the shared stages, and their registry."""

from errata.methods.base import (
    Changes,
    EditSite,
    Method,
    SiteSettings,
    Task,
    preserves_subjects,
    wordings_of,
)
from errata.methods.registry import METHODS, method_named, settings_for
from errata.methods.runs import Run
from errata.values import NOT_FINITE

__all__ = [
    "METHODS",
    "NOT_FINITE",
    "Changes",
    "EditSite",
    "Method",
    "Run",
    "SiteSettings",
    "Task",
    "method_named",
    "preserves_subjects",
    "settings_for",
    "wordings_of",
]
