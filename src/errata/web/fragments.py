"""Pieces of the page as HTML. Everything that was typed goes through here, and comes out as text.

Values are escaped by Jinja; then braces, dollars and backticks too, as the page's HTML component is a template of its
own, which would fill them in.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from errata.facts import Fact
from errata.methods import Method
from errata.results import REGISTRY, Results, Score, TableRow
from errata.runtime import duration
from errata.web.jobs import View
from errata.web.measuring import Bar, shown_groups
from errata.web.measuring import Line as Asked
from errata.web.session import Compared, Workspace, title

TEMPLATE = "fragments.html.jinja"
SPECIAL = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})
MOST_DRAFTS = 10
WORDS = {"generation_accuracy": "the model writes the new answer by itself"}
"""Scores of no group that are shown at once, in plain words."""
STAGES = {
    "Probabilities before": "Asking the unedited model",
    "Generation before": "Letting the unedited model write",
    "Probabilities after": "Asking the edited model",
    "Generation after": "Letting the edited model write",
}
"""Stages of the evaluation, for people."""
PARTS = {"ffn": "feed-forward", "attention": "attention"}


def _share(probability: float | None) -> str:
    return "?" if probability is None else f"{100 * probability:.1f} %"


def _visible(text: str) -> str:
    """White space by its name, as nobody sees it otherwise."""
    return text.strip() or {"": "(nothing)", "\n": "(new line)"}.get(text, "(space)")


def _piece(text: str) -> str:
    """A token: one that begins a word as it is, one that goes on in the word before it after an ellipsis."""
    begins = text[:1].isspace() or not text[:1].isalnum()
    return _visible(text) if begins else f"…{text}"


def _headings() -> dict[str, str]:
    """The heading of each kind of question, in order."""
    return {group.page.kind: group.page.heading for group in shown_groups() if group.page is not None}


def _heading(kind: str) -> str:
    return _headings()[kind]


def _words() -> dict[str, str]:
    """The scores that are shown at once, in plain words; the others fold out."""
    sections = {group.name: group.page for group in shown_groups() if group.page is not None}
    return {
        **{f"{name}_success": section.success for name, section in sections.items()},
        **{f"{name}_accuracy": section.accuracy for name, section in sections.items()},
        **WORDS,
    }


def _in_order(groups: Iterable[tuple[str, list[Asked]]]) -> list[tuple[str, list[Asked]]]:
    return sorted(groups, key=lambda group: list(_headings()).index(group[0]))


@cache
def _macros() -> Any:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters, names = cast("dict[str, Any]", made.filters), cast("dict[str, Any]", made.globals)
    filters |= {
        "duration": duration,
        "tenth": "{:.1f}".format,
        "share": _share,
        "visible": _visible,
        "piece": _piece,
        "in_order": _in_order,
    }
    names |= {"heading": _heading, "STAGES": STAGES}
    return made.get_template(TEMPLATE).module


def _fragment(name: str, *values: object) -> str:
    macro = cast("Callable[..., object]", getattr(_macros(), name))
    return str(macro(*values)).strip().translate(SPECIAL)


def error(message: str) -> str:
    """What is wrong, beside the field that it is wrong in."""
    return _fragment("error", message)


def note(message: str) -> str:
    """What is to be known."""
    return _fragment("note", message)


def says(compared: Compared) -> str:
    """The likeliest next tokens and the free continuation; without and with the edits, if there are some."""
    return _fragment("says", compared)


def drafts(facts: Sequence[Fact]) -> str:
    """The facts that wait to be written."""
    return _fragment("drafts", facts[:MOST_DRAFTS], max(0, len(facts) - MOST_DRAFTS))


def progress_of(view: View) -> str:
    """A job: its place in the line, its stages with the time left, how it ended."""
    return _fragment("progress", view)


def about(method: Method[Any], words: str) -> str:
    """A method, and what the chosen strength sets."""
    return _fragment("about", method, words)


def lines(asked: Sequence[Asked], left_out: int = 0) -> str:
    """Each question with its answers before and after; so many others are not among them."""
    return _fragment("lines", asked, left_out)


def scores(results: Results) -> str:
    """The scores with their intervals."""
    rows, words = results.table(), _words()
    shown = [row for row in rows if row.name in words]
    rest = [row for row in rows if row.name not in words]
    return _fragment("scores", _score_rows(shown), _score_rows(rest), len(results.records))


def bars(changed: Sequence[Bar]) -> str:
    """How much each layer is changed."""
    named = [
        {"layer": bar.layer, "name": PARTS.get(bar.kind, bar.kind), "share": bar.share} for bar in changed
    ]
    return _fragment("bars", named, max((bar.share for bar in changed), default=0.0))


def made(space: Workspace) -> str:
    """Every edit of a person with its facts."""
    rows = [
        {
            "title": title(one.entry.name),
            "facts": one.facts,
            "method": one.choice.method,
            "strength": one.choice.strength,
            "held": space.held(one),
        }
        for one in space.edits
    ]
    return _fragment("made", rows)


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table."""
    return _fragment("grid", columns, rows)


def figure(name: str, svg: str) -> str:
    """A figure as an image, in which nothing can run."""
    return _fragment("figure", name, base64.b64encode(svg.encode("utf-8")).decode("ascii"))


def _score_rows(rows: Sequence[TableRow]) -> list[dict[str, object]]:
    words = _words()
    return [
        {
            "label": row.label,
            "words": words.get(row.name, ""),
            "before": _score(row.before, row.name),
            "after": _score(row.after, row.name),
            "count": (row.after or row.before or Score(0, None, None, 0)).count,
        }
        for row in rows
    ]


def _score(score: Score | None, name: str) -> str:
    if score is None:
        return "-"
    scale, digits = (100, 1) if REGISTRY[name].unit == "share" else (1, 3)
    margin = "" if score.margin is None else f" ± {scale * score.margin:.{digits}f}"
    return f"{scale * score.mean:.{digits}f}{margin}"
