"""Keys and current values: what the subject's last token feeds into a linear map, and what stands at the last layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from errata.facts import Fact
from errata.model import EditableModel, Site
from errata.prompts import EncodedRow, batch_rows, by_length, encode_rows, rewrite_rows

KeyAverage = Literal["half", "plain"]
TOKENS_AT_ONCE = 16384


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """How a fact's key is averaged over its contexts.

    "half": the bare prompt weighs one half, the other contexts together the other (the published programs).
    "plain": every context weighs the same (PMET eq. 12 as it reads).
    """

    key_average: KeyAverage


@dataclass(frozen=True)
class KeyPrompts:
    """Every fact's prompt up to its subject's last token, behind each context: all that keys depend on."""

    model: EditableModel
    contexts: int
    rows: tuple[EncodedRow, ...]
    """Fact by fact, the bare prompt first."""

    @classmethod
    def of(cls, model: EditableModel, facts: Sequence[Fact], contexts: Sequence[str]) -> "KeyPrompts":
        """Tokenise whole prompts, then cut the ids: cutting the text could change its tokens."""
        encoded = encode_rows(model, rewrite_rows(facts, contexts))
        return cls(model, len(contexts), tuple(_cut(row) for row in encoded))

    @property
    def facts(self) -> int:
        """How many facts there are."""
        return len(self.rows) // self.contexts

    def keys(self, site: Site, average: KeyAverage) -> Float[Tensor, "fact d_in"]:
        """k of each fact with the weights as they stand now, in float64 (PMET eq. 12, MEMIT eq. 19)."""
        each = self._read(self.rows, inputs_of=site.path)
        return average_over_contexts(each.reshape(self.facts, self.contexts, -1), average)

    def values(self, path: str) -> Float[Tensor, "fact d_model"]:
        """The output of the module at `path` for each bare prompt, with the weights as they stand now, in float64."""
        return self._read(self.rows[:: self.contexts], outputs_of=path)

    def _read(
        self, rows: Sequence[EncodedRow], inputs_of: str | None = None, outputs_of: str | None = None
    ) -> Float[Tensor, "row d"]:
        found: dict[int, Tensor] = {}
        lengths = [len(row.text.ids) for row in rows]
        for group in by_length(lengths, max(1, TOKENS_AT_ONCE // max(lengths))):
            batch = batch_rows(self.model, [rows[index] for index in group])
            seen = self.model.values_at(
                batch.tokens,
                batch.lookup,
                inputs_of=[inputs_of] if inputs_of else [],
                outputs_of=[outputs_of] if outputs_of else [],
            )
            (values,) = seen.values()
            found.update(zip(group, values.to(torch.float64), strict=True))
        return torch.stack([found[index] for index in range(len(rows))])


def average_over_contexts(
    keys: Float[Tensor, "fact context d_in"], average: KeyAverage
) -> Float[Tensor, "fact d_in"]:
    """The mean over contexts as the setting says; the bare prompt stands first."""
    if average == "plain" or keys.shape[1] == 1:
        return keys.mean(dim=1)
    return (keys[:, 0] + keys[:, 1:].mean(dim=1)) / 2


def _cut(row: EncodedRow) -> EncodedRow:
    text = replace(
        row.text, ids=row.text.ids[: row.lookup + 1], target=(), spans=row.text.spans[: row.lookup + 1]
    )
    return replace(row, text=text)
