"""One person's edits on the page: made, measured, asked about, taken back, downloaded."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import environment
import errata
from cli_world import LAYERS, the_world
from errata.facts.fact import Fact
from errata.web.asking import ask
from errata.web.forms import Draft, FormError
from errata.web.session import MOST_WORKSPACES, Session
from errata.web.strength import Choice
from families import FACTS
from tiny import fresh_model
from web_cases import PATIENCE, QUICK, edited


@pytest.fixture
def session() -> Iterator[Session]:
    world = the_world()
    made = Session(errata.load(world.model), world.moments)
    yield made
    made.close()


def test_an_edit_is_measured_and_leaves_the_weights_alone(session: Session) -> None:
    before = session.model.measure_fingerprint()
    space = edited(session, FACTS[0])
    assert session.model.measure_fingerprint() == before
    assert not session.model.ledger.changed
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
    assert not session.model.ledger.changed
    assert space.edits == ()
    assert [draft.fact for draft in space.drafts] == [FACTS[0]]
    assert session.edit(space, space.drafts, QUICK).wait().state == "done"


def test_facts_can_be_written_side_by_side(session: Session) -> None:
    torch.set_num_threads(2)
    try:
        space = session.workspace(None)
        view = session.edit(space, [Draft(fact) for fact in FACTS], QUICK).wait(PATIENCE)
    finally:
        torch.set_num_threads(environment.threads())
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
    with pytest.raises(
        FormError, match=r"conflicting targets: 'Kestrel' \(edit 1\) and 'Duskwell'.*Undo that edit"
    ):
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
