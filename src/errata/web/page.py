"""The page itself, in Gradio: fields, buttons, and what each of them does. What it shows is made in `fragments.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from errata.facts import Fact, joined
from errata.methods import METHODS
from errata.settings import DEFAULT_METHOD
from errata.web import fragments
from errata.web.forms import ARROW, FIELDS, Draft, FormError, draft_of, facts_of_file, is_empty, question_of
from errata.web.parts import file_of, html, shown, slot, stored_run
from errata.web.session import Session, Workspace, title
from errata.web.stored import Stored
from errata.web.strength import STRENGTHS, Strength, choice

TICK = 0.4
"""Seconds between two looks at a job."""
SOON = 1.5
"""Seconds: an answer that takes no longer is waited for."""
KEPT = (3_600, 7 * 86_400)
"""Seconds: how often Gradio's copies of files are looked through, and how old they may get; none outlives the page."""
STORAGE = "errata-web"
"""Where the browser keeps which workspace is its own."""
Update = dict[Any, Any]


def make_page(
    session: Session | None, examples: Sequence[Fact] = (), stored: Stored | None = None
) -> gr.Blocks:
    """The page of a session, of a stored run, or of both."""
    name = session.model.name if session is not None else stored.title if stored is not None else ""
    with gr.Blocks(title=f"Errata: {name}", analytics_enabled=False, delete_cache=KEPT) as page:
        if stored is not None:
            stored_run(stored)
        if session is not None:
            _Editor(session, examples).build(page)
    page.queue(default_concurrency_limit=None, api_open=False)
    return page


class _Editor:
    """The part of the page where a model is edited: its components, and what happens when they are used."""

    def __init__(self, session: Session, examples: Sequence[Fact]) -> None:
        self.session = session
        self.examples = examples

    # --- what there is to see ----------------------------------------------------------------------

    def build(self, page: gr.Blocks) -> None:
        """Lay everything out, and connect it."""
        model = self.session.model
        gr.Markdown("# Errata", elem_classes="er-head")
        html(
            fragments.note(
                f"Correct what {model.name} says, and see what moved. Your edits are yours alone: others who use "
                "this page do not see them."
            ),
            classes="er-plain",
        )
        self.token = gr.BrowserState("", storage_key=STORAGE)
        self.timer = gr.Timer(TICK, active=False)
        with gr.Row(elem_classes="er-top"):
            with gr.Column(elem_classes="er-part-facts"):
                self._facts()
            with gr.Column(elem_classes="er-part-says"):
                self._asking()
            with gr.Column(elem_classes="er-part-edit"):
                self._method()
        self._outcome()
        self._connect(page)

    def _facts(self) -> None:
        gr.Markdown("## 1. Facts")
        self.example = gr.Dropdown(
            [
                (joined(fact.question, fact.target_new, fact.join), number)
                for number, fact in enumerate(self.examples)
            ],
            value=None,
            label="Fill in an example",
            visible=bool(self.examples),
        )
        self.fields: dict[str, gr.Textbox] = {}
        self.errors: dict[str, gr.HTML] = {}
        self._field("prompt", "Question, with its subject in braces", "The capital of {France} is")
        self._field("target_new", "New answer", "Cairo")
        with gr.Accordion("More: subject, old answer, test questions", open=False) as self.more:
            self._field("subject", "Subject, if there are no braces", "France")
            self._field("target_true", "Answer until now (if empty, what the model says)", "Paris")
            self._field(
                "paraphrases",
                "The same in other words, one a line: should change too",
                "France, whose capital city is",
                lines=2,
            )
            self._field(
                "neighbors",
                f"Questions about others, one a line: should stay (question {ARROW} answer, or the question alone)",
                f"The capital of Belgium is {ARROW} Brussels",
                lines=2,
            )
        with gr.Row():
            self.add = gr.Button("Add another fact", min_width=130)
            self.upload = gr.UploadButton("Upload a file of facts", min_width=130)
            self.clear = gr.Button("Remove all waiting", min_width=130, visible=False)
        self.errors["file"] = slot()
        self.drafts = html(visible=False)

    def _field(self, name: str, label: str, example: str, lines: int = 1) -> None:
        self.fields[name] = gr.Textbox(
            label=label, placeholder=example, lines=lines, max_lines=max(lines, 6), elem_id=f"er-{name}"
        )
        self.errors[name] = slot()

    def _asking(self) -> None:
        gr.Markdown("## 2. What the model says")
        self.question = gr.Textbox(
            label="Ask it anything: the beginning of a sentence",
            placeholder="The capital of France is",
            lines=1,
            max_lines=4,
            elem_id="er-question",
        )
        self.errors["question"] = slot()
        with gr.Row():
            self.ask = gr.Button("Ask", min_width=130)
            self.ask_typed = gr.Button("Ask the question of the fact", min_width=130)
        self.said = html(visible=False, classes="er-plain")

    def _method(self) -> None:
        gr.Markdown("## 3. Edit")
        with gr.Row():
            self.method = gr.Dropdown(
                list(METHODS), value=DEFAULT_METHOD, label="Method", min_width=110, scale=2
            )
            strengths = [(one.capitalize(), one) for one in STRENGTHS]
            self.strength = gr.Radio(strengths, value="normal", label="Strength", min_width=290, scale=4)
        self.words = html(self._words(DEFAULT_METHOD, "normal"), classes="er-about")
        with gr.Row():
            self.edit = gr.Button("Edit the model", variant="primary", min_width=130)
            self.cancel = gr.Button("Cancel", variant="stop", visible=False, min_width=130)
        self.errors["edit"] = slot()
        self.progress = html(visible=False, classes="er-plain")

    def _outcome(self) -> None:
        with gr.Column(visible=False) as self.outcome:
            gr.Markdown("## 4. Before and after")
            self.note = slot()
            self.lines = html()
            with gr.Row(equal_height=False):
                with gr.Column(min_width=320):
                    gr.Markdown("## Scores")
                    self.scores = html()
                with gr.Column(min_width=320):
                    gr.Markdown("## Changed layers")
                    self.bars = html()
            with gr.Row(equal_height=False):
                with gr.Column(min_width=320):
                    gr.Markdown("## Your edits")
                    self.made = html()
                    self.chosen = gr.Radio([], label="Edit to take back")
                    self.undo = gr.Button("Undo this edit")
                    self.errors["edits"] = slot()
                with gr.Column(min_width=320):
                    gr.Markdown("## Take along")
                    self.adapter = gr.DownloadButton("Download the adapter (PEFT)")
                    self.report = gr.DownloadButton("Download the report")
                    self.facts_file = gr.DownloadButton("Download the facts")
                    self.file_notes = slot()

    # --- what happens ------------------------------------------------------------------------------

    def _connect(self, page: gr.Blocks) -> None:
        typed = list(self.fields.values())
        state = [
            self.drafts, self.clear, self.edit, self.cancel, self.progress, self.outcome, self.note, self.lines,
            self.scores, self.bars, self.made, self.chosen, self.undo, self.adapter, self.report, self.facts_file,
            self.file_notes, self.timer, self.said,
        ]  # fmt: skip
        form = [*typed, self.example, self.more, *self.errors.values()]
        self._on(page.load, self._opened, [self.token], [self.token, *state])
        self._on(self.timer.tick, self._tick, [self.token], state)
        self._on(self.example.input, self._fill, [self.example], form)
        self._on(self.add.click, self._add, [self.token, *typed], [*form, *state])
        self._on(self.upload.upload, self._upload, [self.token, self.upload], [*form, *state])
        self._on(self.clear.click, self._clear, [self.token], state)
        asked = [self.said, self.timer, self.question, self.more, *self.errors.values()]
        for event in (self.ask.click, self.question.submit):
            self._on(event, self._ask, [self.token, self.question], asked)
        for event in (self.ask_typed.click, self.fields["prompt"].submit):
            self._on(event, self._ask_typed, [self.token, *typed], asked)
        for event in (self.method.input, self.strength.input):
            self._on(event, self._words, [self.method, self.strength], [self.words])
        given = [self.token, self.method, self.strength, *typed]
        self._on(self.edit.click, self._edit, given, [*form, *state])
        self._on(self.cancel.click, self._cancel, [self.token], state)
        self._on(self.undo.click, self._undo, [self.token, self.chosen], [*form, *state])

    @staticmethod
    def _on(event: Any, act: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        event(act, inputs, outputs, show_progress="hidden", api_visibility="private")

    def _opened(self, token: str | None) -> Update:
        space = self.session.workspace(token)
        return {self.token: space.token, **self._state(space)}

    def _tick(self, token: str) -> Update:
        space = self.session.workspace(token)
        if not space.waits:
            return self._state(space)
        view = None if space.job is None else space.job.view()
        progress = shown("" if view is None else fragments.progress_of(view))
        return {self.progress: progress, self.said: self._said(space)}

    def _state(self, space: Workspace) -> Update:
        """Everything that a workspace is, as the page shows it."""
        view = None if space.job is None else space.job.view()
        busy = view is not None and not view.over
        waiting = [draft.fact for draft in space.drafts]
        changes: Update = {
            self.drafts: shown(fragments.drafts(waiting) if waiting else ""),
            self.clear: gr.update(visible=bool(waiting) and not busy),
            self.edit: gr.update(interactive=not busy),
            self.cancel: gr.update(visible=busy),
            self.progress: shown("" if view is None else fragments.progress_of(view)),
            self.timer: gr.Timer(active=space.waits),
            self.said: self._said(space),
            self.undo: gr.update(interactive=not busy),
            self.note: shown(fragments.note(space.note) if space.note else ""),
            self.outcome: gr.update(visible=bool(space.edits) or bool(space.note)),
        }
        return {**changes, **({} if busy else self._results(space))}

    def _results(self, space: Workspace) -> Update:
        measured, files = space.measured, space.files
        edits = [(title(one.entry.name), one.entry.name) for one in space.edits]
        return {
            self.lines: "" if measured is None else fragments.lines(measured.lines, measured.left_out),
            self.scores: "" if measured is None else fragments.scores(measured.results),
            self.bars: "" if measured is None else fragments.bars(measured.bars),
            self.made: fragments.made(space),
            self.chosen: gr.update(choices=edits, value=edits[-1][1] if edits else None, visible=bool(edits)),
            self.undo: gr.update(visible=bool(edits), interactive=True),
            self.adapter: file_of(None if files is None else files.adapter),
            self.report: file_of(None if files is None else files.report),
            self.facts_file: file_of(None if files is None else files.facts),
            self.file_notes: shown(
                "" if files is None or not files.notes else fragments.note(" ".join(files.notes))
            ),
        }

    def _errors(self, found: FormError | None = None) -> Update:
        """Each error beside its field, and none beside the others."""
        told = {} if found is None else found.fields
        unfold = {self.more: gr.update(open=True)} if INSIDE & told.keys() else {}
        return unfold | {
            slot: shown(fragments.error(told[name]) if name in told else "")
            for name, slot in self.errors.items()
        }

    def _emptied(self) -> Update:
        return {**dict.fromkeys(self.fields.values(), ""), self.example: None}

    def _fill(self, number: int | None) -> Update:
        if number is None:
            return {self.example: None}
        fact = self.examples[number]
        neighbors = [f"{probe.prompt} {ARROW} {probe.target}" for probe in fact.neighborhood]
        values = {
            "prompt": fact.prompt.replace("{}", f"{{{fact.subject}}}"),
            "subject": "",
            "target_new": fact.target_new,
            "target_true": fact.target_true or "",
            "paraphrases": "\n".join(fact.paraphrase_prompts),
            "neighbors": "\n".join(neighbors),
        }
        return {self.fields[name]: value for name, value in values.items()} | self._errors()

    def _add(self, token: str, *texts: str | None) -> Update:
        space = self.session.workspace(token)
        try:
            self.session.add(space, [draft_of(_typed(texts))])
        except FormError as error:
            return self._errors(error)
        return {**self._errors(), **self._emptied(), **self._state(space)}

    def _upload(self, token: str, path: str) -> Update:
        space = self.session.workspace(token)
        try:
            self.session.add(space, facts_of_file(path, Path(path).name))
        except FormError as error:
            return self._errors(FormError({"file": "\n".join(error.fields.values())}))
        return {**self._errors(), **self._state(space)}

    def _clear(self, token: str) -> Update:
        space = self.session.workspace(token)
        space.drafts = ()
        return self._state(space)

    def _ask_typed(self, token: str, *texts: str | None) -> Update:
        """Ask the question of the form; an error stands beside the form's own field."""
        typed = _typed(texts)
        return self._asked(token, typed["prompt"].replace("{}", typed["subject"]), "prompt")

    def _ask(self, token: str, question: str | None) -> Update:
        return self._asked(token, question or "", "question")

    def _asked(self, token: str, typed: str, field: str) -> Update:
        space = self.session.workspace(token)
        try:
            question = question_of(typed)
        except FormError as error:
            return self._errors(FormError({field: error.fields["question"]}))
        view = self.session.ask(space, question).wait(SOON)
        if view.state == "failed":
            return self._errors(FormError({field: view.message}))
        own = {self.question: question} if field == "prompt" else {}
        return {
            **self._errors(),
            **own,
            self.said: self._said(space),
            self.timer: gr.Timer(active=space.waits),
        }

    def _said(self, space: Workspace) -> Any:
        """The answer to the question that was asked last, or how far it is."""
        view = None if space.asking is None else space.asking.view()
        if view is not None and view.state != "done":
            return shown(fragments.progress_of(view))
        return shown(fragments.says(space.compared) if space.compared else "")

    def _words(self, method: str, strength: Strength) -> str:
        return fragments.about(METHODS[method], choice(self.session.model, method, strength).words)

    def _edit(self, token: str, method: str, strength: Strength, *texts: str | None) -> Update:
        space, typed = self.session.workspace(token), _typed(texts)
        try:
            own: list[Draft] = [] if is_empty(typed) else [draft_of(typed)]
            chosen = choice(self.session.model, method, strength)
            if not space.busy:
                self.session.add(space, own)
            self.session.edit(space, space.drafts, chosen)
        except FormError as error:
            return self._errors(error)
        return {**self._errors(), **self._emptied(), **self._state(space)}

    def _cancel(self, token: str) -> Update:
        space = self.session.workspace(token)
        if space.job is not None:
            space.job.cancel()
            space.job.wait(5)
        return self._state(space)

    def _undo(self, token: str, name: str | None) -> Update:
        space = self.session.workspace(token)
        try:
            self.session.undo(space, name or "")
        except FormError as error:
            return self._errors(error)
        return {**self._errors(), **self._state(space)}


def _typed(texts: Sequence[str | None]) -> dict[str, str]:
    """The form's values by field, in the order in which the page has its fields."""
    return dict(zip(ORDER, (text or "" for text in texts), strict=True))


INSIDE = {"subject", "target_true", "paraphrases", "neighbors"}
"""Fields that are folded away at first."""
ORDER = ("prompt", "target_new", "subject", "target_true", "paraphrases", "neighbors")
assert sorted(ORDER) == sorted(FIELDS)
