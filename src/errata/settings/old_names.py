"""Settings that had a flat name before they were composed of stages: each is refused with its new dotted name."""

from collections.abc import Collection

LATE = "late_"
"""With this prefix a name was the late site's of two_site."""
_VALUES = (
    "steps",
    "learning_rate",
    "clamp",
    "decay",
    "kl_weight",
    "kl_position",
    "nll_weight",
    "neighbor_weight",
    "neighbor_loss",
    "neighbor_prefix",
    "neighbor_count",
    "preserve",
    "preserve_weight",
    "preserve_rows",
)
NEW_NAMES = {
    **{name: f"values.{name}" for name in _VALUES},
    "optimise": "values.optimize",
    "layers": "layers",
    "lookup": "lookup",
    "key_average": "keys.average",
    "key_templates": "keys.templates",
    "preserve_keys": "keys.preserve",
    "preserve_key_weight": "keys.preserve_weight",
    "preserve_key_rows": "keys.preserve_rows",
    "spread": "spread.share",
    "write": "spread.write",
    "covariance_weight": "solve.covariance_weight",
    "covariance_ridge": "solve.covariance_ridge",
    "null_threshold": "solve.threshold",
    "ridge": "solve.ridge",
    "key": "solve.key",
}
"""By old name; two_site has each at both of its sites."""
LATE_NAMES = frozenset(
    (
        "layers",
        "lookup",
        "steps",
        "learning_rate",
        "clamp",
        "kl_weight",
        "nll_weight",
        "optimise",
        "neighbor_weight",
        "preserve",
        "spread",
        "covariance_weight",
        "key_templates",
        "preserve_keys",
        "preserve_key_weight",
        "preserve_key_rows",
    )
)
"""Those that two_site also had with `LATE` before them; all others were shared by both of its sites."""


def new_names(name: str, known: Collection[str]) -> list[str]:
    """What the setting `name` is called now, among the names `known`; empty where it never was one."""
    late = name.startswith(LATE)
    old = name.removeprefix(LATE)
    if old not in NEW_NAMES or (late and old not in LATE_NAMES):
        return []
    new = NEW_NAMES[old]
    if late:
        wanted = [f"late.{new}"]
    elif old in LATE_NAMES:
        wanted = [new, f"early.{new}"]
    else:
        wanted = [new, f"early.{new}", f"late.{new}"]
    return [one for one in wanted if one in known]


def old_name(name: str) -> str:
    """What a setting of a method with one site was called; digests made of those names stay what they were."""
    return _OLD_NAMES.get(name, name)


_OLD_NAMES = {new: old for old, new in NEW_NAMES.items()}
