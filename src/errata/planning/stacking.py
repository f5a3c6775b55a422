"""Edits made on top of a stack: earlier edits are in the weights, and their keys K_p in K K^T.

Delta = R K^T (lambda E[k k^T] + K_p K_p^T + K K^T)^-1                      (MEMIT eq. 14, with K_p; as AlphaEdit's)
"""

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from errata.methods import (
    Changes,
    LocateThenEditSettings,
    Run,
    Task,
    earlier_key_sum,
)
from errata.models import Site
from errata.moments import ridged
from errata.solve import no_factor


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
