"""One part of the facts as an exam: what an edit of them is measured by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from errata.calibrate.objective import Measures
from errata.edits import Edit
from errata.evaluation import evaluate, likeliest_next, share_unchanged
from errata.facts import Apart, Fact
from errata.models import EditableModel
from errata.results import Score
from errata.runtime import Progress


@dataclass(frozen=True)
class Exam:
    """Facts with the statements about their subjects, and what the unedited model says to all of it."""

    model: EditableModel
    facts: tuple[Fact, ...]
    statements: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...]
    unedited: Measures
    said: tuple[int, ...]
    """The unedited model's next token after each statement."""

    @classmethod
    def of(
        cls, model: EditableModel, apart: Sequence[Apart], texts: Sequence[str], on_progress: Progress
    ) -> Exam:
        """Ask the model as it stands."""
        facts, statements = tuple(one.fact for one in apart), tuple(one.statements for one in apart)
        said = likeliest_next(model, [prompt for each in statements for prompt in each], on_progress)
        unedited = _measures(model, facts, texts, 100.0 if said else None, on_progress)
        return cls(model, facts, statements, tuple(texts), unedited, said)

    def measure(self, edit: Edit, on_progress: Progress) -> Measures:
        """Ask the model with the edit, and leave it as it was. A fact that the edit left out counts as not said."""
        with edit.applied(self.model):
            prompts = [prompt for each in self.statements for prompt in each]
            said = likeliest_next(self.model, prompts, on_progress)
            kept = share_unchanged(self.said, said)
            return _measures(
                self.model, self.facts, self.texts, None if kept is None else 100 * kept, on_progress
            )


def _measures(
    model: EditableModel,
    facts: Sequence[Fact],
    texts: Sequence[str],
    statements: float | None,
    on_progress: Progress,
) -> Measures:
    results = evaluate(model, facts, None, on_progress, generate=False, trustworthy=False, texts=texts)
    scores = results.scores("after")
    perplexity = scores["me_ppl_50"]
    return Measures(
        efficacy=_percent(scores["efficacy_accuracy"]) or 0.0,
        paraphrases=_percent(scores["generalization_success"]),
        specificity=_percent(scores["specificity_success"]),
        statements=statements,
        perplexity=math.nan if perplexity is None else perplexity.mean,
    )


def _percent(score: Score | None) -> float | None:
    return None if score is None else 100 * score.mean
