"""All of the page without a page: one model, the line before it, and for each person a workspace with edits.

The weights of the model are those of the unedited one whenever nobody works with it; a person's edits are in them
only while that person's work runs. So nobody sees another one's edits, and an edit that is cancelled leaves nothing.
"""

import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from torch import nn

from errata.edits import Entry, Stack, new_stack
from errata.facts import Fact, contradictions
from errata.models import EditableModel
from errata.planning import EditRequest, kept_values, prepare
from errata.web.asking import Said, answers, ask
from errata.web.downloads import Files, write_files
from errata.web.forms import MOST_FACTS, Draft, FormError
from errata.web.jobs import Job
from errata.web.line import Line
from errata.web.measuring import Measured, measure
from errata.web.strength import Choice

MOST_WORKSPACES = 64
"""Of them the ones that were not used for longest are forgotten."""
TOKEN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Compared:
    """One question that a person asked: what the unedited model says, and what it says with the edits."""

    before: Said
    after: Said | None
    """None where there are no edits."""


@dataclass(frozen=True)
class Made:
    """An edit of a workspace."""

    entry: Entry
    choice: Choice
    facts: tuple[Fact, ...]


@dataclass
class Workspace:
    """What one person has typed, edited, and found."""

    token: str
    stack: Stack
    drafts: tuple[Draft, ...] = ()
    edits: tuple[Made, ...] = ()
    measured: Measured | None = None
    files: Files | None = None
    job: Job | None = None
    """The last edit, or the taking back of one."""
    asking: Job | None = None
    note: str = ""
    """What is to be known of the last work."""
    count: int = 0
    """Edits that were ever made, for their names."""
    compared: Compared | None = None
    """The question that was asked last."""

    @property
    def busy(self) -> bool:
        """Whether an edit, or the taking back of one, is waiting or running."""
        return self.job is not None and not self.job.view().over

    @property
    def waits(self) -> bool:
        """Whether anything of this person's is waiting or running."""
        return self.busy or (self.asking is not None and not self.asking.view().over)

    def held(self, made: Made) -> int:
        """How many facts of an edit the model says now."""
        if self.measured is None:
            return 0
        said = {
            (record.subject, record.prompt, record.target_new)
            for record in self.measured.results.records
            if record.after.efficacy[0].wanted.correct
        }
        return sum((fact.subject, fact.question, fact.target_new) in said for fact in made.facts)


class Session:
    """One model and everyone who works with it."""

    def __init__(self, model: EditableModel, covariance: Path | None = None, seed: int = 0) -> None:
        """`covariance` is a folder of second moments (default: measured with the first edit, and kept)."""
        self.model = model
        self.covariance = covariance
        self.seed = seed
        self.line = Line()
        self._root = Path(tempfile.mkdtemp(prefix="errata-web-"))
        self._lock = threading.Lock()
        self._spaces: dict[str, Workspace] = {}

    def close(self) -> None:
        """Stop what runs, and remove everything from the disk."""
        for space in list(self._spaces.values()):
            for job in (space.job, space.asking):
                if job is not None:
                    job.cancel()
        shutil.rmtree(self._root, ignore_errors=True)

    def workspace(self, token: str | None) -> Workspace:
        """The workspace of a token; a new one, with a new token, where there is none."""
        with self._lock:
            space = self._spaces.pop(token, None) if token is not None else None
            if space is None:
                known = token is not None and TOKEN.fullmatch(token)
                own = cast(str, token) if known else secrets.token_hex(16)
                space = Workspace(own, new_stack(self._root / own / "stack", self.model))
                self._forget()
            self._spaces[space.token] = space  # the last one used stands last
            return space

    def add(self, space: Workspace, drafts: Sequence[Draft]) -> None:
        """Put facts with those that wait to be written.

        Raises:
            FormError: they are too many, or contradict what is there.
        """
        together = (*space.drafts, *drafts)
        if len(together) > MOST_FACTS:
            raise FormError(
                {"file": f"That would be {len(together):,} facts; {MOST_FACTS:,} can wait at most."}
            )
        self._check(space, [draft.fact for draft in together])
        space.drafts = together

    def edit(self, space: Workspace, drafts: Sequence[Draft], chosen: Choice) -> Job:
        """Write facts into the model, on top of the edits that are there.

        Raises:
            FormError: nothing to write, something that contradicts an earlier edit, or work that runs already.
        """
        self._check_free(space)
        if not drafts:
            raise FormError(
                {"edit": "There is nothing to write yet. Type a fact above, or upload a file of facts."}
            )
        self._check(space, [draft.fact for draft in drafts])
        number = space.count + 1

        def work(job: Job) -> None:
            self._write(space, drafts, chosen, job)

        space.job = Job(self.line, f"Edit {number}: {len(drafts)} fact{'s' * (len(drafts) != 1)}", work)
        return space.job

    def _write(self, space: Workspace, drafts: Sequence[Draft], chosen: Choice, job: Job) -> None:
        """Make the edit, measure it, and put it on the workspace's stack; nothing changes where any of it fails."""
        name = f"edit-{space.count + 1}"
        with self._stoppable(job):
            request = EditRequest(
                self._completed(drafts),
                chosen.method,
                chosen.settings,
                covariance=self.covariance,
                stack=space.stack,
                keep_in=kept_values(),
                seed=self.seed,
            )
            made = prepare(self.model, request).run(job)
            stack = space.stack.add(name, made, space.stack.names)
            try:
                measured, files = self._measure(space, stack, job)
                compared = self._again(space, stack)
            except BaseException:
                stack.remove(name)
                raise
        written = stack.edit(name)
        space.stack, space.measured, space.files = stack, measured, files
        space.edits = (*space.edits, Made(stack.entries[-1], chosen, written.facts))
        space.drafts, space.compared, space.count = (), compared, space.count + 1
        left_out = [f"{one.fact.question!r} was left out: {one.reason}. " for one in written.dropped]
        missing = [f"{one.question!r}: {one.reason}. " for one in written.checks if not one.holds]
        space.note = "".join([*left_out, *missing])

    def undo(self, space: Workspace, name: str) -> Job:
        """Take any one of the edits out.

        Raises:
            FormError: there is none of that name, or work runs.
        """
        self._check_free(space)
        made = next((one for one in space.edits if one.entry.name == name), None)
        if made is None:
            raise FormError({"edits": "This edit is not there any more."})

        def work(job: Job) -> None:
            left = replace(space.stack, entries=tuple(e for e in space.stack.entries if e.name != name))
            with self._stoppable(job):
                measured, files = self._measure(space, left, job) if left.entries else (None, None)
                compared = self._again(space, left)
            leaning = space.stack.leaning_on(name)
            space.stack = space.stack.remove(name)
            space.edits = tuple(one for one in space.edits if one is not made)
            space.measured, space.files, space.compared = measured, files, compared
            space.note = _leaning(leaning)

        space.job = Job(self.line, f"Taking {title(name).lower()} back", work)
        return space.job

    def ask(self, space: Workspace, question: str) -> Job:
        """Put a question to the unedited model and to the one with the person's edits; see `Workspace.compared`."""

        def work(job: Job) -> None:
            with self._stoppable(job):
                space.compared = self._compare(question, space.stack)

        if space.asking is not None:
            space.asking.cancel()  # does nothing to one that is over
        space.asking = Job(self.line, "Your question", work)
        return space.asking

    def _completed(self, drafts: Sequence[Draft]) -> list[Fact]:
        """The facts, with what the unedited model answers where a person left that open."""
        asks = list(dict.fromkeys(question for draft in drafts for question in draft.asks))
        said = dict(zip(asks, answers(self.model, asks), strict=True)) if asks else {}
        return [draft.completed(said) for draft in drafts]

    def _measure(self, space: Workspace, stack: Stack, job: Job) -> tuple[Measured, Files]:
        merged = stack.merged()
        measured = measure(self.model, merged.facts, merged, job)
        folder = self._root / space.token / "files" / secrets.token_hex(4)
        return measured, write_files(folder, self.model, measured)

    def _compare(self, question: str, stack: Stack) -> Compared:
        before, after = ask(self.model, question), None
        if stack.entries:
            with stack.applied(self.model):
                after = ask(self.model, question)
        return Compared(before, after)

    def _again(self, space: Workspace, stack: Stack) -> Compared | None:
        """The question that was asked last, put once more."""
        return None if space.compared is None else self._compare(space.compared.before.prompt, stack)

    @contextmanager
    def _stoppable(self, job: Job) -> Generator[None]:
        """Inside, a job that is cancelled ends before the model's next pass."""

        def check(
            *_: object,
        ) -> None:  # a plain function: workers copy the model with its hooks, and no job can be copied
            job.passed()

        handle = cast(nn.Module, self.model.model).register_forward_pre_hook(check)
        try:
            yield
        finally:
            handle.remove()

    def _check(self, space: Workspace, facts: Sequence[Fact]) -> None:
        for conflict in contradictions(facts):
            raise FormError({"edit": f"{conflict}. Keep one of the two."})
        for conflict in space.stack.conflicts(facts)[:1]:
            known = replace(conflict, earlier_source=title(conflict.earlier_source).lower())
            raise FormError({"edit": f"{known}. Undo that edit first."})

    def _check_free(self, space: Workspace) -> None:
        if space.busy:
            raise FormError({"edit": "Something is running already. Wait for it, or cancel it."})

    def _forget(self) -> None:
        """Make room for one more workspace."""
        for token in [token for token, space in self._spaces.items() if not space.waits]:
            if len(self._spaces) < MOST_WORKSPACES:
                return
            del self._spaces[token]
            shutil.rmtree(self._root / token, ignore_errors=True)


def title(name: str) -> str:
    """`Edit 2` for the edit of that name."""
    return name.replace("edit-", "Edit ")


def _leaning(names: Sequence[str]) -> str:
    if not names:
        return ""
    numbers = " and ".join(title(name).removeprefix("Edit ") for name in names)
    return (
        f"Edit {numbers} {'was' if len(names) == 1 else 'were'} made on top of it and may hold less well now: the "
        "scores below are measured anew."
    )
