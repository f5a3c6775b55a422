"""The leverage profile: in which blocks a subject's key stands out from what the model feeds in everywhere else.

    s = k^T E[k k^T]^-1 k,    its mean over all text is d_in

The leverage of a subject's last token against that of the other tokens of the same prompts, block by block, from one
pass over the prompts and the second moments. It says how much of a change one solve gives a fact;
docs/decisions/0016-settings-that-find-themselves.md says what it predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from errata.errors import CovarianceError, FactError
from errata.facts import Fact
from errata.models import Change, EditableModel, Site, solving_device
from errata.moments import read_moment
from errata.passes import EncodedRow, by_length, encode_rows, pad, rewrite_rows
from errata.runtime import Progress, silent
from errata.settings import RULE_BLOCKS
from errata.solve import leverages

MOST_FACTS = 64
"""More change the medians hardly."""
TOKENS_AT_ONCE = 2048
STAGE = "leverage"


@dataclass(frozen=True)
class BlockLeverage:
    """What was measured of one block: medians over the tokens of a kind, in units of d_in."""

    layer: int
    subject: float
    """The last tokens of the subjects."""
    others: float
    """All other tokens of the prompts but the first, which many models use as a sink of attention."""
    last: float
    """The last tokens of the prompts."""

    @property
    def ratio(self) -> float:
        """How much the subjects stand out."""
        return self.subject / self.others


@dataclass(frozen=True)
class LeverageProfile:
    """Block by block, from below."""

    model: str
    facts: int
    blocks: tuple[BlockLeverage, ...]

    def highest(self, count: int = RULE_BLOCKS) -> tuple[int, ...]:
        """The consecutive blocks in which subjects stand out most: half of them at most."""
        count = min(count, max(1, len(self.blocks) // 2))
        ratios = [one.ratio for one in self.blocks]
        first = max(range(len(ratios) - count + 1), key=lambda start: sum(ratios[start : start + count]))
        return tuple(one.layer for one in self.blocks[first : first + count])


def leverage_profile(
    model: EditableModel, facts: Sequence[Fact], moments: Path, on_progress: Progress = silent
) -> LeverageProfile:
    """Measure every block, from the second moments in a folder and one pass over the bare prompts of some facts.

    Raises:
        FactError: no fact, or prompts without a token beside the first one and the subject's last.
        CovarianceError: second moments are missing, damaged, not positive definite or another model's.
    """
    rows = encode_rows(model, rewrite_rows(facts[:MOST_FACTS], ("",)), "subject_last")
    wanted = [_positions(row) for row in rows]
    kinds = torch.tensor([kind for positions in wanted for kind in positions.values()])
    if not all(bool((kinds == kind).any()) for kind in (SUBJECT, OTHER)):
        raise FactError("The prompts have no tokens that the subjects' last ones can be compared with.")
    sites = [model.site("ffn", layer) for layer in range(model.layers)]
    keys = _keys_at(model, rows, [list(positions) for positions in wanted], sites)
    blocks: list[BlockLeverage] = []
    for site in sites:
        each = leverages(keys.pop(site.path).double(), _factor(model, site, moments)).cpu() / site.d_in
        subject, others = (_median(each[kinds == kind]) for kind in (SUBJECT, OTHER))
        ends = torch.tensor([len(positions) for positions in wanted]).cumsum(0) - 1
        blocks.append(BlockLeverage(site.layer, subject, others, _median(each[ends])))
        on_progress(STAGE, site.layer + 1, model.layers)
    return LeverageProfile(model.name, len(rows), tuple(blocks))


SUBJECT, OTHER = 0, 1
"""The kinds of tokens that are told apart."""


def _positions(row: EncodedRow) -> dict[int, int]:
    """The positions of a prompt that are read, ascending, and of which kind each is: the prompt's last is one."""
    first = 0 if row.lookup == 0 else 1
    last = row.text.predicted_at.start
    return {place: SUBJECT if place == row.lookup else OTHER for place in range(first, last + 1)}


def _keys_at(
    model: EditableModel,
    rows: Sequence[EncodedRow],
    positions: Sequence[Sequence[int]],
    sites: Sequence[Site],
) -> dict[str, Float[Tensor, "token d_in"]]:
    """The inputs of all sites at these positions, row by row."""
    lengths = [len(row.text.ids) for row in rows]
    found: dict[str, dict[int, Tensor]] = {site.path: {} for site in sites}
    for group in by_length(lengths, max(1, TOKENS_AT_ONCE // max(lengths))):
        tokens = pad([rows[index].text.ids for index in group], model)

        def reader(path: str, group: Sequence[int] = tuple(group)) -> Change:
            def read(value: Tensor) -> None:
                for place, index in enumerate(group):
                    found[path][index] = value[place, list(positions[index])].detach()

            return read

        with torch.no_grad(), model.hooked({site.path: reader(site.path) for site in sites}, "input"):
            model.forward(tokens)
    return {path: torch.cat([each[index] for index in range(len(rows))]) for path, each in found.items()}


def _factor(model: EditableModel, site: Site, moments: Path) -> Float[Tensor, "d_in d_in"]:
    moment = read_moment(moments, model, site).to(solving_device(site.device))
    factor, failed = cast("tuple[Tensor, Tensor]", torch.linalg.cholesky_ex(moment))
    if int(failed) != 0 or not bool(factor.isfinite().all()):
        raise CovarianceError(
            f"The second moments of {site.path} are not positive definite, so no leverage can be measured. They were "
            "measured on too few tokens: collect them again from more text (`errata covariance collect --samples`)."
        )
    return factor


def _median(values: Float[Tensor, " token"]) -> float:
    return median(cast("list[float]", values.tolist()))
