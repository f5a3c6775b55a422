"""Experiments: the papers' tables and figures as recipes, run cell by cell, and put beside what the papers printed."""

from errata.experiments.cells import Cell, Request
from errata.experiments.recipes import Recipe, load_recipe, recipe_names

__all__ = ["Cell", "Recipe", "Request", "load_recipe", "recipe_names"]
