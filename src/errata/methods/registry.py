"""The registry of methods, and `edit`, which runs one of them.

A new method is one file beside this one, one TOML in `presets/`, and one line in `METHODS`: docs/add-a-method.md.
"""

import difflib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from errata.edits import Edit
from errata.errors import FactError, UnknownSetting
from errata.facts import Fact
from errata.methods import alphaedit, finetune, memit, pmet, rome, two_site
from errata.methods.base import Method
from errata.methods.mend import METHOD as MEND
from errata.methods.runs import Run
from errata.models import EditableModel, Site
from errata.moments import Factors, default_recipe, ensure
from errata.passes import check_contexts, encode_rows, kl_rows, rewrite_rows
from errata.runtime import Progress, processes, silent
from errata.settings import Preset, build, load_presets
from errata.solve import KeptKeySettings

logger = logging.getLogger(__name__)

AT_ONCE = 256
"""Facts whose texts are looked at together."""

METHODS: dict[str, Method[Any]] = {
    row.name: row
    for row in (
        pmet.METHOD,
        memit.METHOD,
        two_site.METHOD,
        alphaedit.METHOD,
        rome.METHOD,
        finetune.METHOD,
        MEND,
    )
}


def edit(
    model: EditableModel,
    facts: Sequence[Fact],
    method: str = "pmet",
    settings: Mapping[str, object] | None = None,
    contexts: Sequence[str] | None = None,
    covariance: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    preset: str | None = None,
    keep_in: str | os.PathLike[str] | None = None,
    on_progress: Progress = silent,
) -> Edit:
    """Find the change of weights that makes the model say the facts; the model itself is left as it was.

    `settings` goes over the preset; `contexts` are prefix texts, the empty one first, each joined to the prompt by
    one space (default: sampled from the model with `seed`); `covariance` is a folder of second moments (default:
    measured once and kept in the user's cache). Finished values are kept in the folder `keep_in`, if given: a run
    that was killed goes on from them and ends with the same edit.

    Raises:
        UnknownSetting, SettingsError, LayerOutOfRange: a method, preset or setting that cannot be.
        FactError: no facts, two facts that contradict each other, or a prompt that does not fit the model.
        UnsupportedArchitecture: the method assumes what this family does not do.
        CovarianceError: the second moments are missing, damaged, or another model's.
        NoFactsLeft: the loss of every fact was not a number.
    """
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
    return run.as_edit(facts, run.changes(facts))


def prepare(
    model: EditableModel,
    facts: Sequence[Fact],
    method: str = "pmet",
    settings: Mapping[str, object] | None = None,
    contexts: Sequence[str] | None = None,
    covariance: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    preset: str | None = None,
    keep_in: str | os.PathLike[str] | None = None,
    on_progress: Progress = silent,
) -> Run:
    """Settle and check everything that a run of the method needs; arguments and errors as for `edit`."""
    chosen = method_named(method)
    _check_facts(facts)
    values, found = settings_for(model, method, settings or {}, preset)
    for layer in values.layers:
        model.check_layer(layer)
    chosen.check(model, values)
    prefixes = chosen.contexts(model, seed) if contexts is None else check_contexts(contexts)
    prefixes = tuple(processes.agreed(prefixes))
    for start in range(0, len(facts), AT_ONCE):  # what does not fit is told at once
        some = facts[start : start + AT_ONCE]
        encode_rows(model, [*rewrite_rows(some, prefixes), *kl_rows(some)])
    if isinstance(values, KeptKeySettings):
        encode_rows(model, values.rows_beside(facts))
    sites = chosen.moments(model, values)
    moments = _moments(model, sites, covariance, on_progress) if sites else None
    return Run(
        model=model,
        method=chosen,
        settings=values,
        preset=found,
        contexts=prefixes,
        moments=moments,
        covariance=str(covariance or moments.name) if moments else "",
        seed=seed,
        keep_in=Path(keep_in) if keep_in else None,
        on_progress=on_progress,
    )


def method_named(name: str) -> Method[Any]:
    """The registry's row of that name.

    Raises:
        UnknownSetting: there is none.
    """
    if name in METHODS:
        return METHODS[name]
    close = difflib.get_close_matches(name, METHODS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownSetting(f"There is no method {name!r}.{hint} Known methods: {', '.join(METHODS)}.")


def settings_for(
    model: EditableModel, method: str, given: Mapping[str, object], preset: str | None = None
) -> tuple[Any, Preset]:
    """The settings of a run: the preset that fits the model (or is named), and over it what is given.

    Raises:
        UnknownSetting, SettingsError: as `errata.settings` tells.
    """
    found = load_presets(method).for_model(model.name, model.layers, preset)
    if found.rule is not None and not found.by_rule <= given.keys():
        logger.warning("%s", found.rule)
    return build(method_named(method).settings, found.values, given), found


def _check_facts(facts: Sequence[Fact]) -> None:
    """Raise where an edit would have nothing to write, or two different things at one place."""
    if not facts:
        raise FactError("There are no facts to write. Give at least one.")
    seen: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        before = seen.setdefault((fact.prompt, fact.subject), fact)
        if before.target_new != fact.target_new:
            raise FactError(
                f"Two facts contradict each other: {fact.prompt!r} about {fact.subject!r} shall be both "
                f"{before.target_new!r} and {fact.target_new!r}. Keep one (`errata facts check FILE` finds them all)."
            )


def _moments(
    model: EditableModel,
    sites: Sequence[Site],
    covariance: str | os.PathLike[str] | None,
    on_progress: Progress,
) -> Path:
    """The folder of second moments, every one of them looked at before hours are spent on values."""
    folder = (
        Path(covariance)
        if covariance is not None
        else ensure(model, sites, default_recipe(model), on_progress)
    )
    factors = Factors(folder, model)
    for site in sites:
        factors.check(site)
    return folder


__all__ = ["METHODS", "edit", "method_named", "prepare", "settings_for"]
