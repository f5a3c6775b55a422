"""MEND (Mitchell et al., ICLR 2022): a trained editor turns the gradient of the facts into the edit.

    W <- W - alpha_l * sum_t d~_t u~_t^T        over the tokens of all facts, for every map of the edited FFNs

(u~, d~) come from the factors (u, d) of the gradient of sum_i -(1/T) sum_t log P(t | x_i) by the networks of
`errata.methods.mend.editor`; `errata.methods.mend.trainer` trains them, once for a model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from errata.edits import Delta
from errata.errors import NoFactsLeft, SettingsError
from errata.methods.base import Changes, Method, Task
from errata.methods.mend.editor import Editor, edited_sites
from errata.methods.mend.gradients import Factors, Readings, capture
from errata.methods.mend.store import TrainedEditor, load_editor
from errata.methods.mend.trainer import train_editor
from errata.models import EditableModel, Site
from errata.passes import EncodedText, by_length, encode_text, rewrite_rows
from errata.settings import about
from errata.values import NOT_FINITE

STAGE = "gradients"
FACTS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class MendSettings:
    """Which editor is used, and the blocks that it writes."""

    layers: tuple[int, ...] = field(metadata=about("The blocks that the editor writes."))
    editor: str | None = field(
        default=None,
        metadata=about(
            "Folder of a trained editor (errata train-editor); shipped is the embedded model's own."
        ),
    )

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise SettingsError(
                f"Setting 'layers' must be one or more different blocks: {list(self.layers)}."
            )


def check(model: EditableModel, settings: MendSettings) -> None:
    """MEND needs an editor that was trained for this model and these blocks.

    Raises:
        SettingsError: none is named, or it writes other blocks.
        EditorError: it cannot be read, or was trained for other weights.
    """
    _editor_of(model, settings).for_model(model)


def mend(task: Task, settings: MendSettings) -> Changes:
    """One gradient, turned by the editor; behind several contexts it is that of the mean over them.

    Raises:
        NoFactsLeft: the loss of every fact was not a number.
    """
    model = task.model
    editor = _editor_of(model, settings).for_model(model)
    sites = edited_sites(model, settings.layers)
    sums = {site.path: _Sum(site) for site in sites}
    failed: list[int] = []
    done = 0
    for group, texts in _batches(task):
        loss, factors = capture(model, sites, Readings.of(model, texts))
        broken = loss.reshape(len(group), -1).isnan().any(dim=1).cpu()
        failed += [fact for number, fact in enumerate(group) if bool(broken[number])]
        whole = ~broken.repeat_interleave(len(task.contexts))
        _add(editor, factors, whole, len(task.contexts), sums)
        done += len(group)
        task.on_progress(STAGE, done, len(task.facts))
    if len(failed) == len(task.facts):
        raise NoFactsLeft(
            "The loss of every fact was not a number. Is the model's precision too low, or is it damaged?"
        )
    deltas = {path: total.delta() for path, total in sums.items()}
    return Changes(deltas, dict.fromkeys(sorted(failed), NOT_FINITE))


def _editor_of(model: EditableModel, settings: MendSettings) -> TrainedEditor:
    if settings.editor is None:
        raise SettingsError(
            f"Setting 'editor' has no value, and MEND needs an editor that was trained for {model.name}. Train one, "
            f"`errata train-editor {model.name} --facts FILE --output EDITOR`, and give it: --set editor=EDITOR."
        )
    trained = load_editor(settings.editor)
    blocks = trained.settings.layers
    if sorted(blocks) != sorted(settings.layers):
        words = ",".join(map(str, blocks))
        raise SettingsError(
            f"Setting 'layers' is {list(settings.layers)}, but the editor {settings.editor} writes blocks "
            f"{list(blocks)}. Set layers={words}."
        )
    return trained


def _batches(task: Task) -> Iterator[tuple[list[int], list[EncodedText]]]:
    """Facts with the texts that state them, behind every context, fact by fact; like lengths together."""
    rows = rewrite_rows(task.facts, task.contexts)
    texts = [encode_text(task.model, row.prompt, row.target, row.join) for row in rows]
    count = len(task.contexts)
    lengths = [len(texts[number * count].ids) for number in range(len(task.facts))]
    for group in by_length(lengths, max(1, FACTS_AT_ONCE // count)):
        yield group, [text for fact in group for text in texts[fact * count : (fact + 1) * count]]


def _add(
    editor: Editor,
    factors: dict[str, Factors],
    rows: Bool[Tensor, " row"],
    contexts: int,
    sums: dict[str, "_Sum"],
) -> None:
    """Add the change that the editor makes of the chosen rows' factors."""
    for path, found in factors.items():
        kept = found.only(rows)
        mean = replace(kept, gradients=kept.gradients / contexts)
        with torch.no_grad():
            update = editor.update(path, mean)
        sums[path].add(update.values.T, update.keys)


class _Sum:
    """The change of one weight: factors while they are thin, one matrix from then on."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._left: list[Tensor] = []
        self._right: list[Tensor] = []
        self._dense: Tensor | None = None

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add `left` [d_out, token] times `right` [token, d_in]."""
        self._left.append(left)
        self._right.append(right)
        if sum(part.shape[1] for part in self._left) > min(self._site.d_out, self._site.d_in) / 2:
            product = torch.cat(self._left, dim=1) @ torch.cat(self._right)
            self._dense = product if self._dense is None else self._dense + product
            self._left, self._right = [], []

    def delta(self) -> Delta:
        """The change, in float32 or the weight's wider dtype."""
        precise = torch.promote_types(self._site.weight.dtype, torch.float32)
        if self._dense is None:
            return Delta.from_factors(torch.cat(self._left, dim=1), torch.cat(self._right), precise)
        dense = self._dense
        if self._left:
            dense = dense + torch.cat(self._left, dim=1) @ torch.cat(self._right)
        return Delta(None, None, dense.to(precise).contiguous())


def _prefixes(model: EditableModel, seed: int) -> tuple[str, ...]:
    """The bare prompt alone: MEND reads the gradient of nothing else."""
    return ("",)


def _no_moments(model: EditableModel, settings: MendSettings) -> Sequence[Site]:
    return []


METHOD = Method(
    name="mend",
    summary="a trained editor turns the gradient of the facts into a change of the last blocks' FFNs",
    source="Mitchell et al., Fast Model Editing at Scale, ICLR 2022",
    writes="every map of the FFN in the last three blocks",
    order="batch",
    cost="one pass over its own statement, forward and back; before the first edit, the training of the editor",
    settings=MendSettings,
    check=check,
    run=mend,
    moments=_no_moments,
    contexts=_prefixes,
    context_count=1,
)

__all__ = ["METHOD", "MendSettings", "check", "mend", "train_editor"]
