"""The rows beside the facts: neighbors, other wordings, and other statements about a subject that are to stay.

What a request or its settings ask for and the facts do not bring is found here, from the templates of the facts
themselves; which neighbors the model knows is asked in `neighbors.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from errata.errors import FactError, SettingsError
from errata.facts import Fact, with_edit_prompts, with_preserve_prompts
from errata.methods import EditSite, method_named, preserves_subjects, wordings_of
from errata.planning.request import EditRequest
from errata.settings import dotted, settings_of

VALUES = "values.neighbor_weight"
"""The end of the path of a setting that every site with values has."""
PAPERS_WEIGHT = 1.0
"""Of neighbors in the loss (Baghel et al., 2025, eq. 7)."""


@dataclass(frozen=True)
class Beside:
    """Facts with everything that is read beside them."""

    facts: tuple[Fact, ...]
    notes: tuple[str, ...] = ()
    """What only some of the facts have, one sentence each."""


def option_settings(request: EditRequest, published: Mapping[str, object]) -> dict[str, object]:
    """The settings that the words `neighbors` and `preserve` stand for; a weight of neighbors that is set stays.

    They are those of the method's first site.

    Raises:
        SettingsError: another value is set.
    """
    own, path = dotted(request.settings), first_site(request)
    weight, values = f"{path}values.neighbor_weight", dict[str, object]()
    if request.neighbors == "none":
        values[weight] = 0
    if request.preserve is not None:
        values[f"{path}values.preserve"] = request.preserve
    for name, value in values.items():
        if name in own and own[name] != value:
            raise SettingsError(f"--set {name}={own[name]} contradicts the option that sets it to {value}.")
    weighted = weight in own or published.get(weight)
    if request.neighbors in ("file", "auto") and not weighted:
        values[weight] = PAPERS_WEIGHT
    return values


def first_site(request: EditRequest) -> str:
    """What the paths of the first site's settings begin with: nothing where the method has a single one."""
    names = (one.name for one in settings_of(method_named(request.method).settings))
    return next((name.removesuffix(VALUES) for name in names if name.endswith(VALUES)), "")


def facts_beside(
    request: EditRequest, sites: Sequence[EditSite], over: Mapping[str, object], facts: Sequence[Fact]
) -> Beside:
    """The facts with other wordings and statements to preserve, as the sites ask; templates are the request's.

    Raises:
        FactError: somebody asked for neighbors or statements to preserve, and no fact has any.
    """
    notes: list[str] = []
    prepared = list(facts)
    if not sites:
        return Beside(tuple(prepared))
    path, values = first_site(request), sites[0].values
    if request.neighbors != "auto" and values.neighbor_weight > 0 and f"{path}values.neighbor_weight" in over:
        notes += _count_neighbors(prepared)
    if count := wordings_of(sites):
        prepared = with_edit_prompts(prepared, count, request.seed, request.facts)
    if preserves_subjects(sites):
        rows = max(site.values.preserve_rows for site in sites)
        prepared = with_preserve_prompts(prepared, rows, request.seed, request.facts)
        needed = f"{path}values.preserve" in over or f"{path}keys.preserve" in over
        notes += _count_preserved(prepared, needed)
    return Beside(tuple(prepared), tuple(notes))


def _count_neighbors(facts: Sequence[Fact]) -> list[str]:
    count = sum(bool(fact.neighbors) for fact in facts)
    if count == 0:
        raise FactError(
            "No fact of the file has neighbors. Write some (docs/facts.md), or let Errata find them with "
            "--neighbors auto."
        )
    return [f"{count} of {_counted(facts)} have neighbors."] if count < len(facts) else []


def _count_preserved(facts: Sequence[Fact], needed: bool) -> list[str]:
    """How many facts have other statements to preserve; `needed`: somebody asked for them, not only a preset."""
    count = sum(bool(fact.preserve_prompts) for fact in facts)
    if count == 0 and needed:
        raise FactError(
            "There is nothing to preserve: no fact has preserve_prompts, and the file has no templates of other "
            "relations. Write some (docs/facts.md), or leave --preserve out."
        )
    if count < len(facts):
        return [f"{count} of {_counted(facts)} have other statements that are preserved."]
    return []


def _counted(facts: Sequence[Fact]) -> str:
    return f"{len(facts)} fact{'s' * (len(facts) != 1)}"
