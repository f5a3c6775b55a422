"""An edit as an object: the change of each weight, where it came from, its folder, and stacks of several edits."""

from errata.edits.checks import FactCheck
from errata.edits.deltas import Delta, Realized, check_finite, sites_of, sum_deltas, write_deltas
from errata.edits.edit import Dropped, Edit, EditOrigin, SettingValue, edit_described, edits_in, load_edit
from errata.edits.folder import ABOUT
from errata.edits.stacks import Entry, Stack, is_stack, new_stack, open_edit, open_stack

__all__ = [
    "ABOUT",
    "Delta",
    "Dropped",
    "Edit",
    "EditOrigin",
    "Entry",
    "FactCheck",
    "Realized",
    "SettingValue",
    "Stack",
    "check_finite",
    "edit_described",
    "edits_in",
    "is_stack",
    "load_edit",
    "new_stack",
    "open_edit",
    "open_stack",
    "sites_of",
    "sum_deltas",
    "write_deltas",
]
