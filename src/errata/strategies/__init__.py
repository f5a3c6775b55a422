"""Strategies: a method run more than once. Iterations, batches one after the other, and a guard against collapse."""

from errata.strategies.closing import run_checked
from errata.strategies.guard import Guard
from errata.strategies.steps import Strategy, check_strategy, run_steps

__all__ = ["Guard", "Strategy", "check_strategy", "run_checked", "run_steps"]
