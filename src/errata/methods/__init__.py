"""The methods, one file each over the shared stages, and their registry."""

from errata.methods.base import (
    Changes,
    EditSite,
    Method,
    SharedSite,
    SiteSettings,
    Task,
    contexts_for,
    preserves_subjects,
    wordings_of,
    written_sites,
)
from errata.methods.registry import METHODS, fitting_preset, method_named, settings_for
from errata.methods.runs import Run
from errata.values import NOT_FINITE

__all__ = [
    "METHODS",
    "NOT_FINITE",
    "Changes",
    "EditSite",
    "Method",
    "Run",
    "SharedSite",
    "SiteSettings",
    "Task",
    "contexts_for",
    "fitting_preset",
    "method_named",
    "preserves_subjects",
    "settings_for",
    "wordings_of",
    "written_sites",
]
