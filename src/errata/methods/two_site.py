"""Two sites (Errata's own): write the subject gently where it is gathered, write the relation where it is read.

Every other locate-then-edit method writes at the subject's last token. That key is the same for all relations of the
subject, so what is written there moves the whole subject. At the prompt's last token the key depends on subject and
relation, but a write there alone carries over badly to other wordings. So both, one after the other:

    1. early layers, looked up at the subject's last token: MEMIT's value, held back by the KL of other statements about
       the subject (`values.preserve`), by a neighbor (`values.neighbor_weight`) and by a large lambda
       (`solve.covariance_weight`).
           v1*     = h^L1 + delta1,    delta1 = argmin phi NLL + mu KL + omega DECAY + w_n NEIGHBOR + w_p PRESERVE
           Delta^l = R1 K1^T (lambda1 E[k k^T] + K1 K1^T)^-1,                                 l in `early.layers`
    2. late layers, looked up at the prompt's last token, from the weights of step 1: MEMIT's value again.
           v2*     = h^L2 + delta2,    delta2 = argmin phi NLL + mu KL + omega DECAY
           Delta^l = R2 K2^T (lambda2 E[k k^T] + K2 K2^T + w P P^T)^-1,                       l in `late.layers`

K2: each fact's key, the mean over the contexts and over `late.keys.templates` other wordings (`edit_prompts`). P: the
keys that are to put out what they did (`late.keys.preserve`): of the same relation for other subjects, and of other
relations for the same subject. E[k k^T] is the unedited model's; so are the distributions that PRESERVE compares with.

With `late.values.optimize` = attention, ffn the second value is PMET's. Each site has all settings of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from errata.edits import write_deltas
from errata.errors import SettingsError
from errata.methods.base import (
    BLOCK,
    FFN,
    Changes,
    Method,
    SiteSettings,
    Task,
    check_block_value,
    check_places,
    site_solver,
    written_sites,
)
from errata.methods.memit import memit
from errata.methods.pmet import pmet
from errata.models import EditableModel, Site
from errata.runtime import Progress
from errata.values import Outcome


@dataclass(frozen=True, kw_only=True)
class TwoSiteSettings:
    """MEMIT's settings for the early site, MEMIT's or PMET's for the late one."""

    early: SiteSettings
    late: SiteSettings


def check(model: EditableModel, settings: TwoSiteSettings) -> None:
    """The early value is MEMIT's, the late one MEMIT's or PMET's.

    Raises:
        SettingsError: other places than theirs, another weight than the FFN's, or a late layer below an early one.
        UnsupportedArchitecture: a value is the block's output, and the family normalizes after the FFN.
    """
    early, late = settings.early, settings.late
    check_block_value(model, early, "two_site", "early.")
    if late.values.optimize in (BLOCK, FFN):
        check_block_value(model, late, "two_site", "late.")
    else:
        check_places(late.values, ("attention", "ffn"), late.spread.write, "two_site", "late.")
    if late.layers[0] <= early.layers[-1]:
        raise SettingsError(
            f"Setting 'late.layers' is {list(late.layers)}, and 'early.layers' {list(early.layers)}: all late layers "
            "must lie above the early ones."
        )


def two_site(task: Task, settings: TwoSiteSettings) -> Changes:
    """Write the early site, and from the weights that it leaves the late one; both are one change.

    A fact whose late value is not a number is taken out of the early write as well.

    Raises:
        NoFactsLeft: no fact has a value at both sites.
        CovarianceError: the second moments cannot be solved with.
    """
    left = list(range(len(task.facts)))
    known, failed = dict(task.known), dict[int, str]()
    while True:
        early = memit(_of(task, left, known), settings.early)
        failed |= {left[place]: reason for place, reason in early.failed.items()}
        known |= {left[place]: outcome for place, outcome in enumerate(early.outcomes)}
        left = [index for index in left if index not in failed]
        with task.model.ledger.temporary():
            write_deltas(task.model, early.deltas)
            late_task = replace(_of(task, left, task.known), on_progress=_late(task.on_progress))
            late = late_write(late_task, settings.late)
        if not late.failed:
            break
        failed |= {left[place]: reason for place, reason in late.failed.items()}
        left = [index for index in left if index not in failed]
    both = {index: _joined(known[index], late.outcomes[place]) for place, index in enumerate(left)}
    outcomes = tuple(both.get(index, known[index]) for index in range(len(task.facts)))
    realized = {**early.realized, **late.realized}
    return Changes({**early.deltas, **late.deltas}, failed, outcomes, realized=realized)


def late_write(task: Task, settings: SiteSettings) -> Changes:
    """MEMIT's write where one place is optimized, else PMET's."""
    return memit(task, settings) if settings.values.optimize in (BLOCK, FFN) else pmet(task, settings)


def _of(task: Task, chosen: Sequence[int], known: Mapping[int, Outcome]) -> Task:
    """The task for some of its facts."""
    own = {place: known[index] for place, index in enumerate(chosen) if index in known}
    return replace(task, facts=[task.facts[index] for index in chosen], known=own)


def _joined(early: Outcome, late: Outcome) -> Outcome:
    """The values of both sites, with what the second one measured."""
    return Outcome(early.initial | late.initial, early.delta | late.delta, late.trace)


def _late(on_progress: Progress) -> Progress:
    return lambda stage, done, total: on_progress(f"{stage}, late site", done, total)


def sites(model: EditableModel, settings: TwoSiteSettings) -> list[Site]:
    """The maps that both sites write."""
    return [*written_sites(model, settings.early), *written_sites(model, settings.late)]


METHOD = Method(
    name="two_site",
    summary="writes the subject gently where it is gathered, and the relation at the prompt's last token",
    source="Errata (docs/two-site.md), from MEMIT (Meng et al., 2023) and PMET (Li et al., 2024)",
    writes="the FFN's down projection in every early and every late layer",
    order="batch",
    cost="up to `early.values.steps` passes over 13 short texts and `late.values.steps` over 7, forward and "
    "back; two solves",
    settings=TwoSiteSettings,
    check=check,
    moments=sites,
    layers=lambda settings: (*settings.early.layers, *settings.late.layers),
    sites=lambda settings: (settings.early, settings.late),
    solver=site_solver,
    run=two_site,
    earlier_keys="on request",
)
