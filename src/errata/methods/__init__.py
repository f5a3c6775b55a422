"""The methods, one file each over the shared stages, and their registry."""

from errata.methods.alphaedit import earlier_key_sum, key_sum
from errata.methods.base import NOT_FINITE, Changes, LocateThenEditSettings, Method, Task
from errata.methods.registry import METHODS, method_named, settings_for
from errata.methods.runs import Run

__all__ = [
    "METHODS",
    "NOT_FINITE",
    "Changes",
    "LocateThenEditSettings",
    "Method",
    "Run",
    "Task",
    "earlier_key_sum",
    "key_sum",
    "method_named",
    "settings_for",
]
