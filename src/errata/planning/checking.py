"""Whether an edit looks at itself, and what that asks of its values."""

from collections.abc import Mapping
from typing import Any

from errata.methods import method_named
from errata.planning.request import EditRequest
from errata.settings import Preset, dotted, flatten, load_presets

LEAST_PROBABILITY = 0.5
"""Per token, over contexts: a value below it does not make the model say the target (`values.least_probability`)."""


def checks_itself(request: EditRequest, preset: Preset) -> bool:
    """Whether the edit is checked: as asked, or else where nobody has chosen how it is made.

    A published preset is the paper's single write; whoever repeats writes, or sets up the values (here or in a
    preset of their own), decides alone.
    """
    if request.check is not None:
        return request.check
    chosen = [*dotted(request.settings), *(name for name in preset.values if name not in preset.by_rule)]
    own_values = any(f".{name}".partition(".values.")[1] for name in chosen)
    return (
        method_named(request.method).optimizes_values
        and request.strategy is None
        and not load_presets(request.method).publishes(preset)
        and not own_values
    )


def check_settings(request: EditRequest, settings: Any) -> Mapping[str, object]:
    """What a value must do, at the site that says the fact: the last one; nothing where the settings say it."""
    values = flatten(settings)
    names = [name for name in values if f".{name}".endswith(".values.least_probability")]
    last = names[-1:]
    return {
        name: LEAST_PROBABILITY
        for name in last
        if values[name] is None and name not in dotted(request.settings)
    }
