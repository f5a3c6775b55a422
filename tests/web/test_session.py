"""The page without a page: the line, jobs, forms, a person's edits, and what is shown of them as HTML."""

import json
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import errata
from cli_world import LAYERS, run, the_world
from errata.errors import ResultsError, SettingsError
from errata.facts.fact import Fact, write_facts
from errata.methods.registry import METHODS
from errata.web import fragments, serving
from errata.web.asking import answers, ask
from errata.web.forms import LONGEST, Draft, FormError, draft_of, facts_of_file, question_of
from errata.web.jobs import Job, View
from errata.web.line import Line
from errata.web.measuring import GROUPS
from errata.web.session import MOST_WORKSPACES, Compared, Session, Workspace
from errata.web.stored import open_run
from errata.web.strength import STRENGTHS, Choice, choice
from families import FACTS, tiny_model
from tiny import fresh_model

QUICK = Choice("pmet", "normal", {"layers": LAYERS, "values.steps": 4, "solve.covariance_weight": 20}, "")
PATIENCE = 300.0
"""Seconds: a busy machine is no failure."""
SHORT = "<i>{{7}}${7}`"
EVIL = "<script>alert(1)</script>{{7*7}}${7*7}`"


@pytest.fixture
def session() -> Iterator[Session]:
    world = the_world()
    made = Session(errata.load(world.model), world.moments)
    yield made
    made.close()


def edited(session: Session, *facts: Fact) -> Workspace:
    """The workspace of somebody who has written these facts, one edit each."""
    space = session.workspace(None)
    for fact in facts:
        done = session.edit(space, [Draft(fact)], QUICK).wait()
        assert done.state == "done", done.message
    return space


# --- the line and its jobs -----------------------------------------------------------------------


def test_who_came_first_is_first_and_the_others_see_their_place() -> None:
    line, order, gate = Line(), list[str](), threading.Event()

    def work(name: str) -> Job:
        def act(job: Job) -> None:
            gate.wait(PATIENCE)
            order.append(name)

        return Job(line, name, act)

    jobs = [work(name) for name in "abc"]
    assert [job.view().before for job in jobs] == [0, 1, 2]
    assert [job.view().state for job in jobs[1:]] == ["waiting", "waiting"]
    gate.set()
    assert [job.wait(PATIENCE).state for job in jobs] == ["done"] * 3
    assert order == ["a", "b", "c"]


def test_who_waits_can_leave_and_the_others_move_up() -> None:
    line, gate = Line(), threading.Event()
    first = Job(line, "first", lambda job: bool(gate.wait(PATIENCE)) and None)
    second, third = (Job(line, name, lambda job: None) for name in ("second", "third"))
    second.cancel()
    assert second.wait(PATIENCE).state == "cancelled"
    assert third.view().before == 1
    gate.set()
    assert (first.wait(PATIENCE).state, third.wait(PATIENCE).state) == ("done", "done")


def test_a_job_tells_its_stages_and_how_it_failed() -> None:
    def work(job: Job) -> None:
        job("optimization", 1, 3)
        raise errata.errors.NoFactsLeft("nothing left")

    view = Job(Line(), "an edit", work).wait(PATIENCE)
    assert (view.state, view.message) == ("failed", "nothing left")
    assert [(stage.name, stage.done, stage.total) for stage in view.stages] == [("Values of the facts", 1, 3)]


def test_a_bug_in_a_job_is_told_and_frees_the_line(caplog: pytest.LogCaptureFixture) -> None:
    line = Line()
    view = Job(line, "a bug", lambda job: 1 // 0 and None).wait(PATIENCE)
    assert view.state == "failed"
    assert "ZeroDivisionError" in view.message
    assert "a bug failed" in caplog.text
    assert Job(line, "next", lambda job: None).wait(PATIENCE).state == "done"


# --- what is typed -------------------------------------------------------------------------------


def test_braces_mark_the_subject() -> None:
    fact = draft_of({"prompt": "The capital of {France} is ", "target_new": " Cairo "}).fact
    assert (fact.prompt, fact.subject, fact.target_new) == ("The capital of {} is", "France", "Cairo")


def test_a_subject_can_have_a_field_of_its_own() -> None:
    plain = draft_of({"prompt": "The capital of France is", "subject": "France", "target_new": "Cairo"}).fact
    empty = draft_of({"prompt": "The capital of {} is", "subject": "France", "target_new": "Cairo"}).fact
    assert plain == empty == Fact("The capital of {} is", "France", "Cairo")


def test_paraphrases_and_neighbors_stand_one_a_line() -> None:
    draft = draft_of(
        {
            "prompt": "The capital of {France} is",
            "target_new": "Cairo",
            "paraphrases": "{France}, whose capital is\n\n  {} has its capital in",
            "neighbors": "The capital of {Spain} is => Madrid\nThe capital of Peru is",
        }
    )
    assert draft.fact.paraphrase_prompts == ("France, whose capital is", "France has its capital in")
    assert [probe.prompt for probe in draft.fact.neighborhood] == ["The capital of Spain is"]
    assert draft.keep == ("The capital of Peru is",)


def test_what_was_left_open_is_taken_from_the_model() -> None:
    draft = draft_of({"prompt": "The capital of {France} is", "target_new": "Cairo", "neighbors": "Peru has"})
    fact = draft.completed({"The capital of France is": "Paris", "Peru has": "Lima"})
    assert fact.target_true == "Paris"
    assert [(probe.prompt, probe.target) for probe in fact.neighborhood] == [("Peru has", "Lima")]
    assert draft.completed({"The capital of France is": "cairo", "Peru has": ""}) == draft.fact


@pytest.mark.parametrize(
    ("typed", "field", "told"),
    [
        ({"prompt": "", "target_new": "x"}, "prompt", "in braces"),
        ({"prompt": "The capital is", "target_new": "x"}, "prompt", "Which word is the subject"),
        ({"prompt": "{A} and {B} are", "target_new": "x"}, "prompt", "several pairs"),
        ({"prompt": "The {} is", "target_new": "x"}, "subject", "Which word is the subject"),
        (
            {"prompt": "The capital of Spain is", "subject": "France", "target_new": "x"},
            "subject",
            "does not contain",
        ),
        ({"prompt": "Go go is", "subject": "o", "target_new": "x"}, "subject", "more than once"),
        ({"prompt": "{Spain} is", "subject": "France", "target_new": "x"}, "subject", "The braces say"),
        ({"prompt": "{Spain} is", "target_new": " "}, "target_new", "new answer"),
        ({"prompt": "{Spain} is", "target_new": "x", "target_true": "x"}, "target_true", "the same"),
        ({"prompt": "{Spain} is", "target_new": "x", "neighbors": "Q =>"}, "neighbors", "lacks"),
        ({"prompt": "{Spain} is", "target_new": "x", "paraphrases": "a\n" * 30}, "paraphrases", "30 questions"),
        ({"prompt": "{S} is" + "x" * 10_000_000, "target_new": "x"}, "prompt", "10,000,006 characters"),
        ({"prompt": "{S} is", "target_new": "x" * (LONGEST + 1)}, "target_new", "too long"),
    ],
)  # fmt: skip
def test_an_error_names_its_field(typed: Mapping[str, str], field: str, told: str) -> None:
    with pytest.raises(FormError) as raised:
        draft_of(typed)
    assert told in raised.value.fields[field]
    assert len(str(raised.value)) < 500


def test_a_question_is_neither_empty_nor_endless() -> None:
    assert question_of("The capital of {France} is ") == "The capital of France is"
    for text in ("  ", "x" * 10_000_000):
        with pytest.raises(FormError):
            question_of(text)


def test_a_file_is_read_or_its_lines_are_told(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    write_facts(good, FACTS)
    assert [draft.fact for draft in facts_of_file(good, "good.jsonl")] == list(FACTS)
    bad.write_text('{"prompt": "A is", "subject": "B", "target_new": "C"}\nnot JSON\n', encoding="utf-8")
    with pytest.raises(FormError, match=r"(?s)mine\.jsonl cannot be used.*line 1.*line 2"):
        facts_of_file(bad, "mine.jsonl")


# --- one person's edits --------------------------------------------------------------------------


def test_an_edit_is_measured_and_leaves_the_weights_alone(session: Session) -> None:
    before = session.model.measure_fingerprint()
    space = edited(session, FACTS[0])
    assert session.model.measure_fingerprint() == before
    assert not session.model.written
    assert space.measured is not None
    assert [line.question for line in space.measured.lines] == [FACTS[0].question]
    assert [bar.layer for bar in space.measured.bars] == [1, 2]
    assert all(bar.share > 0 for bar in space.measured.bars)
    assert space.measured.results.has_before
    assert space.drafts == ()


def test_what_a_person_asks_is_answered_without_and_with_the_edits(session: Session) -> None:
    space, question = edited(session, FACTS[0]), FACTS[0].question
    alone = ask(session.model, question)
    session.ask(space, question).wait()
    assert space.compared is not None
    assert space.compared.before == alone
    assert space.compared.after is not None
    assert space.compared.after.tokens != alone.tokens
    with space.stack.applied(session.model):
        assert space.compared.after == ask(session.model, question)


def test_nobody_sees_the_edits_of_another(session: Session) -> None:
    one, other = edited(session, FACTS[0]), session.workspace(None)
    session.ask(other, FACTS[0].question).wait()
    assert one.token != other.token
    assert other.edits == ()
    assert other.compared is not None
    assert other.compared.after is None


def test_the_token_brings_a_person_back(session: Session) -> None:
    space = session.workspace(None)
    assert session.workspace(space.token) is space
    assert session.workspace("../../etc").token != "../../etc"


def test_any_edit_can_be_taken_back(session: Session) -> None:
    space = edited(session, FACTS[0], FACTS[1])
    assert session.undo(space, "edit-1").wait().state == "done"
    assert [made.entry.name for made in space.edits] == ["edit-2"]
    assert "Edit 2 was made on top of it" in space.note
    assert space.measured is not None
    assert [record.prompt for record in space.measured.results.records] == [FACTS[1].question]
    assert session.undo(space, "edit-2").wait().state == "done"
    assert (space.edits, space.measured, space.files) == ((), None, None)
    with pytest.raises(FormError, match="not there any more"):
        session.undo(space, "edit-2")


def test_a_cancelled_edit_leaves_nothing_but_its_facts(session: Session) -> None:
    before, space = session.model.measure_fingerprint(), session.workspace(None)
    session.add(space, [Draft(FACTS[0])])
    endless = Choice("pmet", "normal", {**QUICK.settings, "values.steps": 1_000_000}, "")
    job = session.edit(space, space.drafts, endless)
    assert job.wait(0.5).state == "running"
    with pytest.raises(FormError, match="running already"):
        session.edit(space, space.drafts, QUICK)
    job.cancel()
    assert job.wait(PATIENCE).state == "cancelled"
    assert session.model.measure_fingerprint() == before
    assert not session.model.written
    assert space.edits == ()
    assert [draft.fact for draft in space.drafts] == [FACTS[0]]
    assert session.edit(space, space.drafts, QUICK).wait().state == "done"


def test_facts_can_be_written_side_by_side(session: Session) -> None:
    torch.set_num_threads(2)
    try:
        space = session.workspace(None)
        view = session.edit(space, [Draft(fact) for fact in FACTS], QUICK).wait(PATIENCE)
    finally:
        torch.set_num_threads(1)
    assert view.state == "done", view.message


def test_an_edit_that_is_cancelled_while_it_is_measured_is_taken_out(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        assert space.job is not None
        space.job.cancel()
        space.job.check()

    space = session.workspace(None)
    monkeypatch.setattr(session, "_measure", stopped)
    assert session.edit(space, [Draft(FACTS[0])], QUICK).wait().state == "cancelled"
    assert space.stack.entries == ()
    assert not (space.stack.folder / "edits" / "edit-1").exists()


def test_facts_that_contradict_each_other_are_refused_at_once(session: Session) -> None:
    other = Fact(FACTS[0].prompt, FACTS[0].subject, "Duskwell")
    space = session.workspace(None)
    with pytest.raises(FormError, match="Keep one of the two"):
        session.add(space, [Draft(FACTS[0]), Draft(other)])
    space = edited(session, FACTS[0])
    with pytest.raises(FormError, match="edit 1 made it 'Kestrel'"):
        session.add(space, [Draft(other)])
    with pytest.raises(FormError, match="nothing to write"):
        session.edit(space, [], QUICK)


def test_a_prompt_that_does_not_fit_fails_with_a_sentence() -> None:
    session = Session(fresh_model(length=16))
    space = session.workspace(None)
    view = session.ask(space, "The quiet river " * 20).wait()
    session.close()
    assert view.state == "failed"
    assert "tokens" in view.message


def test_workspaces_that_nobody_uses_are_forgotten() -> None:
    session = Session(fresh_model())
    first = session.workspace(None)
    last = [session.workspace(None) for _ in range(MOST_WORKSPACES)][-1]
    assert session.workspace(last.token) is last
    assert session.workspace(first.token) is not first
    session.close()


def test_the_files_are_those_of_the_edits_that_are_there(session: Session) -> None:
    space = edited(session, FACTS[0], FACTS[1])
    assert space.files is not None
    assert space.files.adapter is not None
    assert space.files.report is not None
    assert errata.read_facts(space.files.facts) == list(FACTS[:2])
    assert FACTS[1].target_new in space.files.report.read_text("utf-8")
    with zipfile.ZipFile(space.files.adapter) as packed:
        assert {Path(name).name for name in packed.namelist()} >= {
            "adapter_config.json",
            "adapter_model.safetensors",
            "README.md",
        }


def test_an_edit_that_is_no_adapter_says_why(session: Session) -> None:
    space = session.workspace(None)
    settings: dict[str, object] = {"layers": LAYERS, "epochs": 2, "weights": "block"}
    done = session.edit(space, [Draft(FACTS[0])], Choice("finetune", "normal", settings, "")).wait()
    assert done.state == "done", done.message
    assert space.files is not None
    assert space.files.adapter is None
    assert "There is no adapter of these edits" in space.files.notes[0]


# --- strength ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_strength_says_what_it_sets_and_sets_it(method: str) -> None:
    model = tiny_model("gpt2")
    gentle, normal, strong = (choice(model, method, strength) for strength in STRENGTHS)
    assert normal.settings == {}
    if not strong.settings:
        assert "no setting for the strength" in strong.words
        return
    (name,) = strong.settings
    assert list(gentle.settings) == [name]
    for one in (gentle, strong):
        assert f"sets {name} to {one.settings[name]:g}" in one.words
    assert gentle.settings[name] != strong.settings[name]
    assert f"leaves {name}" in normal.words


# --- what is shown -------------------------------------------------------------------------------


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


# --- stored runs ---------------------------------------------------------------------------------


def test_a_stored_evaluation_is_shown(tmp_path: Path) -> None:
    world = the_world()
    done = run("evaluate", world.model, "--facts", world.facts, "--edit", world.edit, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    stored = open_run(tmp_path / "run")
    assert stored.results is not None
    assert {line.kind for line in stored.lines} == set(GROUPS.values())
    assert stored.lines[0].before.probability != stored.lines[0].after.probability
    assert "edited by pmet" in stored.about


def test_a_stored_recipe_is_shown(tmp_path: Path) -> None:
    row = {
        "recipe": "pmet-table-1",
        "model": "almanac",
        "row": "PMET",
        "edits": 8,
        "values": {"efficacy_success": {"mean": 97.5, "margin": 1.25}, "fluency": None},
    }
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "scores.svg").write_text("<svg/>", encoding="utf-8")
    stored = open_run(tmp_path)
    assert stored.rows == (("PMET", "8", "97.5 ± 1.2", "-"),)
    assert stored.figures == (("Scores", "<svg/>"),)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"holds no results\.jsonl"):
        open_run(tmp_path)
    (tmp_path / "results.jsonl").write_text("{\n", encoding="utf-8")
    with pytest.raises(ResultsError, match="cannot be read"):
        open_run(tmp_path)


# --- the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_another_address_needs_a_password(host: str) -> None:
    with pytest.raises(SettingsError, match="password"):
        serving.check_host(host, None)
    serving.check_host(host, "secret")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    serving.check_host(host, None)
    with pytest.raises(SettingsError, match="empty"):
        serving.check_host(host, "")


def test_the_command_refuses_before_it_loads_anything() -> None:
    done = run("web", "no-such-model", "--host", "0.0.0.0")
    assert done.exit_code == 2
    assert "--password" in done.stderr


def test_a_port_that_is_taken_is_told() -> None:
    with serving.bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(SettingsError, match="--port 0"):
            serving.bind("127.0.0.1", taken.getsockname()[1])
