"""What the edits of a person have changed: scores, answers side by side, and the size of each change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from errata.edits import Edit
from errata.evaluation import continue_texts, evaluate
from errata.facts import Fact
from errata.models import EditableModel
from errata.results import GROUPS, Question, QuestionGroup, Record, Results
from errata.runtime import Progress

MOST_LINES = 200
"""Questions whose answers are shown side by side; the report has all of them."""
WORDS = 12
"""Tokens of an answer."""


def shown_groups() -> list[QuestionGroup]:
    """The groups whose questions are shown one by one."""
    return [group for group in GROUPS.values() if group.page is not None]


@dataclass(frozen=True)
class Side:
    """What a model says to a question, and how likely the wanted answer is there."""

    text: str
    probability: float | None
    """The geometric mean over the answer's tokens; None where it is not a number."""


@dataclass(frozen=True)
class Line:
    """One question, without and with the edits."""

    kind: str
    """Of the group's `PageSection`."""
    question: str
    wanted: str
    before: Side
    after: Side

    @property
    def stays(self) -> bool:
        """Whether the answer should be the one from before the edit."""
        return any(group.stays for group in shown_groups() if group.page and group.page.kind == self.kind)

    @property
    def right(self) -> bool:
        """Whether the answer is the wanted one; a neighbor may also say what it said before."""
        stayed = self.stays and self.after.text == self.before.text
        return stayed or self.after.text.casefold().startswith(self.wanted.casefold())


@dataclass(frozen=True)
class Bar:
    """How much one weight is changed: the Frobenius norm of the change over that of the weight."""

    layer: int
    kind: str
    share: float


@dataclass(frozen=True)
class Measured:
    """All edits of a person together, against the unedited model."""

    edit: Edit
    results: Results
    lines: tuple[Line, ...]
    left_out: int
    """Questions that are not among `lines`."""
    bars: tuple[Bar, ...]


def measure(model: EditableModel, facts: Sequence[Fact], edit: Edit, on_progress: Progress) -> Measured:
    """Ask the unedited model, and the model with the edit, everything that the facts let one ask."""
    results = evaluate(model, facts, edit, on_progress)
    asked = [pair for record in results.records for pair in _questions(record)]
    shown = asked[:MOST_LINES]
    questions = [question.prompt for _, _, question in shown]
    before = continue_texts(model, questions, WORDS)
    with edit.applied(model):
        after = continue_texts(model, questions, WORDS)
    lines = [
        Line(kind, now.prompt, now.wanted.text, _side(one, earlier), _side(other, now))
        for (kind, earlier, now), one, other in zip(shown, before, after, strict=True)
    ]
    return Measured(edit, results, tuple(lines), len(asked) - len(shown), tuple(bars_of(model, edit)))


def bars_of(model: EditableModel, edit: Edit) -> list[Bar]:
    """The change of each weight relative to the weight, in the order of the layers; `model` is without the edit."""
    sites = {path: model.site_at(path) for path in edit.deltas}
    bars = [
        Bar(site.layer, site.kind, _norm(edit.deltas[path].matrix) / (_norm(site.weight) or 1.0))
        for path, site in sites.items()
    ]
    return sorted(bars, key=lambda bar: (bar.layer, bar.kind))


def _norm(matrix: Tensor) -> float:
    return math.sqrt(float(matrix.detach().double().square().sum()))


def _questions(record: Record) -> list[tuple[str, Question, Question]]:
    """The kind of each question, and it without and with the edit."""
    return [
        (group.page.kind, (record.before or record.after).group(group.name)[place], question)
        for group in shown_groups()
        if group.page is not None
        for place, question in enumerate(record.after.group(group.name))
    ]


def _side(text: str, question: Question) -> Side:
    mean = question.wanted.log_probability
    return Side(text, None if math.isnan(mean) else math.exp(min(0.0, mean)))
