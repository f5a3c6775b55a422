"""Edits made on top of a stack: earlier edits are in the weights, and their keys K_p in K K^T.

Delta = R K^T (lambda E[k k^T] + K_p K_p^T + K K^T)^-1                      (MEMIT eq. 14, with K_p; as AlphaEdit's)
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from errata.edits import Stack
from errata.errors import SettingsError
from errata.facts import Fact
from errata.methods import (
    AlphaEditSettings,
    Changes,
    LocateThenEditSettings,
    Run,
    Task,
    earlier_key_sum,
    prepare,
)
from errata.models import EditableModel, Site
from errata.moments import ridged
from errata.runtime import Progress, silent
from errata.solve import no_factor


def edit_on(
    stack: Stack,
    model: EditableModel,
    facts: Sequence[Fact],
    name: str,
    method: str = "pmet",
    settings: Mapping[str, object] | None = None,
    contexts: Sequence[str] | None = None,
    covariance: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    preset: str | None = None,
    keep_in: str | os.PathLike[str] | None = None,
    hold: bool = True,
    on_progress: Progress = silent,
) -> Stack:
    """Make an edit on top of a stack and add it. With `hold` the keys of the stack's facts enter K K^T.

    Keys are known to PMET, MEMIT and AlphaEdit; other methods only see the earlier edits in the weights. The model is
    left as it was. The other arguments and errors are those of `errata.edit`.

    Raises:
        SettingsError: the name cannot be used, or `hold` is off for AlphaEdit, which always holds.
        FactError: the facts contradict an earlier edit's; nothing is computed.
        WrongModel: the model is not the stack's.
    """
    stack.check_name(name)
    stack.check_model(model)
    stack.check_facts(facts)
    run = prepare(
        model,
        facts,
        method,
        settings,
        contexts,
        covariance,
        seed,
        preset=preset,
        keep_in=keep_in,
        on_progress=on_progress,
    )
    if not hold and isinstance(run.settings, AlphaEditSettings):
        raise SettingsError("alphaedit always knows the keys of earlier edits; they cannot be left out.")
    if hold and isinstance(run.settings, LocateThenEditSettings) and stack.entries:
        run = holding(run)
    with stack.applied(model):
        made = run.as_edit(facts, run.changes(facts))
    edit = replace(made, origin=replace(made.origin, fingerprint=stack.fingerprint))
    return stack.add(name, edit, stack.names)


def holding(run: Run) -> Run:
    """The run with K_p K_p^T beside lambda E[k k^T]: of `Task.earlier`, and of the edits in the model.

    The ridge stays a share of E[k k^T] alone: with the earlier keys in it, it would grow from edit to edit.
    """

    def known_too(task: Task, settings: Any) -> Changes:
        def moment(site: Site) -> Float[Tensor, "d_in d_in"]:
            own: LocateThenEditSettings = settings.at(site.layer)
            plain = ridged(task.covariance(site), own.covariance_ridge)
            earlier = earlier_key_sum(task.model, site, own, task.earlier)
            return plain + earlier.to(plain) / own.covariance_weight

        bare = replace(settings, covariance_ridge=0.0)
        return run.method.run(replace(task, covariance=moment, lower=no_factor), bare)

    return replace(run, method=replace(run.method, run=known_too))
