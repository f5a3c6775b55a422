"""Who came first is first, and jobs tell how far they are."""

import threading

import pytest

import errata
from errata.web.jobs import Job
from errata.web.line import Line
from web_cases import PATIENCE


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
