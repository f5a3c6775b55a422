"""What the page shows: nothing that was typed becomes HTML."""

import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser

import pytest

import errata
from cli_world import the_world
from errata.facts.fact import Fact
from errata.web import fragments
from errata.web.asking import answers, ask
from errata.web.forms import Draft
from errata.web.jobs import View
from errata.web.session import Compared, Session
from families import FACTS, tiny_model
from web_cases import QUICK, edited

SHORT = "<i>{{7}}${7}`"


EVIL = "<script>alert(1)</script>{{7*7}}${7*7}`"


@pytest.fixture
def session() -> Iterator[Session]:
    world = the_world()
    made = Session(errata.load(world.model), world.moments)
    yield made
    made.close()


class Tags(HTMLParser):
    """The tags of a fragment, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_that_was_typed_becomes_html_or_a_template(session: Session) -> None:
    fact = Fact("{} says", f"Orin {SHORT}", SHORT, "x", paraphrase_prompts=[f"Now {SHORT} says"])
    space = edited(session, fact)
    assert space.measured is not None
    shown = [
        fragments.error(EVIL),
        fragments.note(EVIL),
        fragments.drafts([fact]),
        fragments.made(space),
        fragments.lines(space.measured.lines),
        fragments.says(Compared(ask(session.model, fact.question), None)),
        fragments.progress_of(View(EVIL, "failed", 0, (), 1.0, EVIL)),
        fragments.grid([EVIL], [[EVIL]]),
        fragments.figure(EVIL, "<svg/>"),
    ]
    for html in shown:
        read = Tags(html)
        assert not {"script", "i"} & read.tags
        assert EVIL in read.text or SHORT in read.text or f"<figcaption>{EVIL}" in unescape(html)
        assert not re.search(r"[{}$`]", html)
    assert SHORT in Tags(shown[4]).text


def test_the_scores_are_shown_with_their_intervals(session: Session) -> None:
    space = session.workspace(None)
    session.edit(space, [Draft(fact) for fact in FACTS[:3]], QUICK).wait()
    assert space.measured is not None
    text = Tags(fragments.scores(space.measured.results)).text
    assert "Efficacy, success" in text
    assert "±" in text
    assert "Layer 1, feed-forward" in Tags(fragments.bars(space.measured.bars)).text


def test_what_waits_sees_its_place() -> None:
    text = Tags(fragments.progress_of(View("Edit 1", "waiting", 2, (), 1.0, ""))).text
    assert "Your place in the line: 3 (2 before you)" in text


def test_answers_are_a_few_words() -> None:
    assert all(len(text.split()) <= 6 for text in answers(tiny_model("gpt2"), ["The quiet river"]))
