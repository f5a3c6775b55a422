"""Sites as one stage sees them, and their settings by last names, as the plain versions take them."""

from dataclasses import dataclass
from typing import Any

from errata.passes.prompts import Lookup
from errata.settings.schema import build, settings_of
from errata.solve.settings import KeySettings, LeastSquaresSettings, SpreadSettings
from errata.values.settings import ValueSettings


@dataclass(frozen=True, kw_only=True)
class ValueStage:
    """A site as the Optimization stage sees it."""

    layers: tuple[int, ...]
    lookup: Lookup = "subject_last"
    values: ValueSettings


@dataclass(frozen=True, kw_only=True)
class SpreadStage:
    """A site as the Spread stage sees it, with the solver of PMET and MEMIT."""

    layers: tuple[int, ...]
    keys: KeySettings
    spread: SpreadSettings
    solve: LeastSquaresSettings


def stage_of(kind: type[Any], *layers: dict[str, object]) -> Any:
    """A stage from settings by their last names, a later layer over an earlier one."""
    paths = {one.name.rpartition(".")[2]: one.name for one in settings_of(kind)}
    return build(kind, *({paths[name]: value for name, value in layer.items()} for layer in layers))


def value_words(site: Any) -> dict[str, Any]:
    """What `plain_target` takes."""
    newer = ("least_probability", "learning_rate_scale", "write_unfound", "context_tokens")
    values = {name: value for name, value in vars(site.values).items() if name not in newer}
    return {"layers": site.layers, "lookup": site.lookup, **values}


def spread_words(site: Any) -> dict[str, Any]:
    """What `plain_spread` takes."""
    solve = {name: value for name, value in vars(site.solve).items() if name != "realised_share"}
    return {"layers": site.layers, **vars(site.keys), **vars(site.spread), **solve}
