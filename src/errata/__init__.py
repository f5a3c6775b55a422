"""Errata corrects facts in language models: facts in, an edit of the weights out, the proof beside it.

Here are the public names, nothing else. Each is loaded on its first use: `import errata` is quick, without torch.
"""

import importlib
from typing import TYPE_CHECKING

from errata import errors

if TYPE_CHECKING:
    from errata.delivery import from_peft, to_peft
    from errata.edits import Edit, load_edit
    from errata.evaluation import evaluate
    from errata.facts import Fact, Neighbor, Probe, check_facts, read_facts, write_facts
    from errata.models import EditableModel, load
    from errata.planning import EditRequest, Plan, edit, prepare
    from errata.results import Results
    from errata.strategies import Guard, Strategy

__version__ = "0.1.0"

__all__ = [
    "Edit",
    "EditRequest",
    "EditableModel",
    "Fact",
    "Guard",
    "Neighbor",
    "Plan",
    "Probe",
    "Results",
    "Strategy",
    "__version__",
    "check_facts",
    "edit",
    "errors",
    "evaluate",
    "from_peft",
    "load",
    "load_edit",
    "prepare",
    "read_facts",
    "to_peft",
    "write_facts",
]

_HOMES = {
    "Edit": "errata.edits",
    "EditRequest": "errata.planning",
    "EditableModel": "errata.models",
    "Fact": "errata.facts",
    "Guard": "errata.strategies",
    "Neighbor": "errata.facts",
    "Plan": "errata.planning",
    "Probe": "errata.facts",
    "Results": "errata.results",
    "Strategy": "errata.strategies",
    "check_facts": "errata.facts",
    "edit": "errata.planning",
    "evaluate": "errata.evaluation",
    "load": "errata.models",
    "load_edit": "errata.edits",
    "prepare": "errata.planning",
    "from_peft": "errata.delivery",
    "to_peft": "errata.delivery",
    "read_facts": "errata.facts",
    "write_facts": "errata.facts",
}
"""The module that each public name is loaded from."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'errata' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
