"""A session of the page on the tiny model, and what its tests type."""

from cli_world import LAYERS
from errata.facts.fact import Fact
from errata.web.forms import Draft
from errata.web.session import Session, Workspace
from errata.web.strength import Choice

QUICK = Choice("pmet", "normal", {"layers": LAYERS, "values.steps": 4, "solve.covariance_weight": 20}, "")


PATIENCE = 300.0
"""Seconds: a busy machine is no failure."""


def edited(session: Session, *facts: Fact) -> Workspace:
    """The workspace of somebody who has written these facts, one edit each."""
    space = session.workspace(None)
    for fact in facts:
        done = session.edit(space, [Draft(fact)], QUICK).wait()
        assert done.state == "done", done.message
    return space
