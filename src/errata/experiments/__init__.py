"""Experiments: the papers' tables and figures as recipes, run cell by cell, and put beside what the papers printed."""

from errata.experiments.cells import EMBEDDED, Cell, Request
from errata.experiments.columns import LOWER_IS_BETTER, label, number, of_history
from errata.experiments.plan import FROM_TIMINGS, Plan, plan, timings
from errata.experiments.recipes import Printed, Recipe, load_recipe, recipe_names
from errata.experiments.running import run_cells, stored, token_texts, tokens_of
from errata.experiments.tables import RULES, Group, Line, Table, Value, make_table

__all__ = [
    "EMBEDDED",
    "FROM_TIMINGS",
    "LOWER_IS_BETTER",
    "RULES",
    "Cell",
    "Group",
    "Line",
    "Plan",
    "Printed",
    "Recipe",
    "Request",
    "Table",
    "Value",
    "label",
    "load_recipe",
    "make_table",
    "number",
    "of_history",
    "plan",
    "recipe_names",
    "run_cells",
    "stored",
    "timings",
    "token_texts",
    "tokens_of",
]
