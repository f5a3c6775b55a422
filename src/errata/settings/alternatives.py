"""Settings of which exactly one has a value: whoever sets one takes the other's place, and never has to unset it."""

from collections.abc import Mapping

ALTERNATIVES: Mapping[str, tuple[str, ...]] = {
    "solve.realised_share": ("solve.covariance_weight", "solve.ridge"),
    "solve.covariance_weight": ("solve.realised_share",),
    "solve.ridge": ("solve.realised_share",),
    "solve.null_share": ("solve.threshold",),
    "solve.threshold": ("solve.null_share",),
    "values.learning_rate": ("values.learning_rate_scale",),
    "values.learning_rate_scale": ("values.learning_rate",),
}
"""By the end of a path, the ends of those that lose their value: of the same site."""


def alternatives_to(name: str) -> tuple[str, ...]:
    """The settings that have no value once the one of this path has one."""
    for end, others in ALTERNATIVES.items():
        if f".{name}".endswith(f".{end}"):
            site = name.removesuffix(end)
            return tuple(f"{site}{other}" for other in others)
    return ()


def overlaid(*layers: Mapping[str, object]) -> dict[str, object]:
    """Layers of values by their paths as one: a later layer over an earlier one, and over what it is set instead of.

    Alternatives that one layer sets are both kept: then somebody contradicts themselves, and is told so.
    """
    merged: dict[str, object] = {}
    for layer in layers:
        for name, value in layer.items():
            if value is not None:
                for other in alternatives_to(name):
                    merged.pop(other, None)
        merged.update(layer)
    return merged
