"""The values that several processes have found, in every one of them (`processes.py`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from errata.runtime import processes
from errata.values.descent import Outcome, Trace
from errata.values.settings import Place


def gather_outcomes(found: Mapping[int, Outcome], places: Sequence[Place]) -> dict[int, Outcome]:
    """The outcomes of all processes, by the fact's index; recorded deltas stay where they were recorded."""
    if processes.count() == 1:
        return dict(found)
    own: dict[str, Tensor] = {}
    for place in places if found else ():
        own[f"initial.{place}"] = torch.stack([one.initial[place].cpu() for one in found.values()])
        own[f"delta.{place}"] = torch.stack([one.delta[place].cpu() for one in found.values()])
    traces: list[list[Any]] = [[index, {**vars(one.trace), "deltas": []}] for index, one in found.items()]
    gathered: dict[int, Outcome] = {}
    for told, tensors in zip(processes.gather(traces), processes.gather_tensors(own), strict=True):
        for row, (index, trace) in enumerate(told):
            gathered[index] = Outcome(
                {place: tensors[f"initial.{place}"][row] for place in places},
                {place: tensors[f"delta.{place}"][row] for place in places},
                Trace(**trace),
            )
    return {**gathered, **found}
