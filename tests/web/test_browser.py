"""The page in a real browser: the whole journey, bad input, two people at once. Skipped where there is no Chromium."""

import base64
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import errata
from errata.almanac.place import almanac_path
from errata.moments.collection import collect, default_recipe
from errata.moments.corpora import corpus_identity, corpus_texts
from errata.web import serving
from errata.web.session import Session
from errata.web.stored import Stored

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytest.importorskip("gradio", reason="the extra web is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.filterwarnings("ignore"),  # of Gradio's own packages
]

QUESTION, ANSWER = "Question, with its subject in braces", "New answer"
PATIENCE = 120_000
"""Milliseconds: a busy machine is no failure."""


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The app on a free port, in a thread."""
    import uvicorn

    with serving.bind("127.0.0.1", 0) as taken:
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Almanac, with second moments of fewer texts than usual."""
    model, folder = errata.load("almanac"), tmp_path_factory.mktemp("moments") / "almanac"
    corpus = default_recipe(model).corpus
    sites = [model.site("ffn", layer) for layer in range(1, 5)]
    collect(
        model,
        sites,
        corpus_texts(corpus, "text"),
        folder=folder,
        corpus=corpus_identity(corpus, "text"),
        samples=300,
    )
    made = Session(model, folder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(session: Session) -> Iterator[str]:
    facts = [errata.Fact("The capital of {} is", "Italy", "Lima", "Rome")]
    with served(serving.make_app(session, facts)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield opened
        opened.close()


class Visitor:
    """One person with a browser of their own, and everything that their browser asked for or complained about."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self._note(request.url, address))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def _note(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.foreign.append(url)

    def ready(self) -> "Visitor":
        expect(self.button("Edit the model")).to_be_visible(timeout=PATIENCE)
        self.page.wait_for_load_state("networkidle")
        return self

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def field(self, label: str) -> Any:
        return self.page.get_by_label(label, exact=True)

    def type(self, question: str, answer: str) -> None:
        self.field(QUESTION).fill(question)
        self.field(ANSWER).fill(answer)

    def sees(self, text: str) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=PATIENCE)

    def sees_not(self, text: str) -> None:
        expect(self.page.get_by_text(text).first).to_be_hidden(timeout=PATIENCE)

    def error_below(self, field: str, text: str) -> None:
        """An error with that text stands right below that field."""
        error = self.page.locator(".er-error", has_text=text)
        expect(error).to_be_visible(timeout=PATIENCE)
        above, below = self.page.locator(f"#er-{field}").bounding_box(), error.bounding_box()
        assert 0 <= below["y"] - (above["y"] + above["height"]) < 60
        assert above["x"] - 20 <= below["x"] <= above["x"] + above["width"]


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Lets people in; afterwards none of their browsers has asked anybody else for anything."""
    people: list[Visitor] = []

    def come(**options: Any) -> Visitor:
        people.append(Visitor(browser, address, **options))
        return people[-1].ready()

    yield come
    for person in people:
        person.context.close()
        assert person.foreign == []
        assert person.complaints == []


def test_the_whole_journey(visit: Any, tmp_path: Path) -> None:
    person = visit(accept_downloads=True)
    person.type("The capital of {France} is", "Cairo")
    person.button("Ask the question of the fact").click()
    person.sees("The unedited model")
    expect(person.page.get_by_text("Paris").first).to_be_visible()
    person.button("Edit the model").click()
    person.sees("4. Before and after")
    expect(person.page.get_by_role("row").filter(has_text="The capital of France is")).to_contain_text(
        "Cairo"
    )
    person.sees("Efficacy, accuracy")
    person.sees("Layer 4, feed-forward")
    person.sees("1 of 1 said now.")

    person.field("Ask it anything: the beginning of a sentence").fill("The capital of Spain is")
    person.button("Ask").click()
    person.sees("The capital of Spain is")
    person.sees("With your edits")

    with person.page.expect_download() as waiting:
        person.button("Download the adapter (PEFT)").click()
    file = tmp_path / "adapter.zip"
    waiting.value.save_as(file)
    with zipfile.ZipFile(file) as packed:
        packed.extractall(tmp_path)
    assert next_word(tmp_path / "almanac-adapter", "The capital of France is") == "Cairo"

    person.page.reload()
    person.ready().sees("1 of 1 said now.")
    person.button("Undo this edit").click()
    person.sees_not("4. Before and after")
    person.sees("done in")
    person.sees_not("With your edits")


def next_word(adapter: Path, prompt: str) -> str:
    """What plain transformers and PEFT, which know nothing of Errata, say next."""
    from peft import PeftModel

    tokenizer = AutoTokenizer.from_pretrained(str(almanac_path()))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(almanac_path())), str(adapter))
    with torch.no_grad():
        logits = model(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)).logits
    return str(tokenizer.decode([int(logits[0, -1].argmax())])).strip()


def test_bad_input_is_told_beside_its_field(visit: Any) -> None:
    person = visit()
    person.page.get_by_text("More: subject, old answer, test questions").click()
    person.type("The capital of Spain is", "Cairo")
    person.field("Subject, if there are no braces").fill("France")
    person.button("Edit the model").click()
    person.error_below("subject", "does not contain 'France'")
    person.field("Subject, if there are no braces").fill("")
    person.type("x" * 10_000_000, "Cairo")
    person.button("Add another fact").click()
    person.error_below("prompt", "10,000,000 characters")
    person.type("The capital of {Spain} is", "")
    person.button("Edit the model").click()
    person.error_below("target_new", "Write the new answer")
    assert person.page.locator(".er-error").count() == 1


def test_a_file_of_facts_can_be_uploaded(visit: Any, tmp_path: Path) -> None:
    person, good, bad = visit(), tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    errata.write_facts(good, [errata.Fact("The capital of {} is", name, "Oslo") for name in ("Peru", "Chad")])
    bad.write_text("no facts", encoding="utf-8")
    for file, seen in ((bad, "bad.jsonl cannot be used"), (good, "The capital of Chad is")):
        with person.page.expect_file_chooser() as waiting:
            person.button("Upload a file of facts").click()
        waiting.value.set_files(file)
        person.sees(seen)
    person.button("Remove all waiting").click()
    person.sees_not("The capital of Chad is")


def test_what_is_typed_is_neither_run_nor_shown_as_html(visit: Any) -> None:
    person = visit()
    evil = (
        "<script>window.hacked=1</script><img src=x onerror=window.hacked=1> {{7*7}} ${window.hacked=1} **b**"
    )
    person.field("Ask it anything: the beginning of a sentence").fill(evil)
    person.button("Ask").click()
    person.sees("The unedited model")
    person.sees("onerror=window.hacked=1")
    person.type("{<b>France</b><img src=x onerror=window.hacked=1>} is", "<script>window.hacked=1</script>")
    person.button("Add another fact").click()
    person.sees("Waiting to be written")
    person.sees("<b>France</b>")
    assert person.page.evaluate("window.hacked") is None
    assert person.page.locator("img[src=x]").count() == 0


def test_two_people_at_once_wait_for_each_other_and_see_their_own(visit: Any, session: Session) -> None:
    one, other = visit(), visit()
    before = session.line.enter()
    with ExitStack() as busy:
        busy.enter_context(session.line.turn(before, lambda: False))
        one.type("The capital of {Italy} is", "Lima")
        one.button("Edit the model").click()
        one.sees("Your place in the line: 2")
        other.type("The capital of {Egypt} is", "Oslo")
        other.button("Edit the model").click()
        other.sees("Your place in the line: 3")
        other.button("Cancel").click()
        other.sees("cancelled. The weights are what they were.")
    one.sees("1 of 1 said now.")
    other.sees("Waiting to be written")
    other.field("Ask it anything: the beginning of a sentence").fill("The capital of Italy is")
    other.button("Ask").click()
    other.sees("Rome")
    assert other.page.get_by_text("With your edits").count() == 0


def test_the_keyboard_is_enough(visit: Any) -> None:
    person = visit()
    person.field(QUESTION).focus()
    person.page.keyboard.type("The capital of {Peru} is")
    person.page.keyboard.press("Tab")
    person.page.keyboard.type("Oslo")
    expect(person.field(ANSWER)).to_have_value("Oslo")
    person.field("Ask it anything: the beginning of a sentence").focus()
    person.page.keyboard.type("The capital of Peru is")
    person.page.keyboard.press("Enter")
    person.sees("The unedited model")
    person.button("Add another fact").focus()
    person.page.keyboard.press("Enter")
    person.sees("Waiting to be written")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(visit: Any, scheme: str) -> None:
    person = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert person.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert person.page.evaluate("document.body.classList.contains('dark')") is (scheme == "dark")


def test_a_stored_run_needs_no_model(browser: Any) -> None:
    stored = Stored(
        "pmet-table-1", "on almanac", None, ("", "Edits"), (("PMET <b>", "8"),), (("A", "<svg/>"),)
    )
    with served(serving.make_app(None, (), stored)) as address:
        person = Visitor(browser, address)
        person.sees("Stored run")
        person.sees("PMET <b>")
        data = base64.b64encode(b"<svg/>").decode()
        expect(person.page.locator(f"img[src$='{data}']")).to_have_count(1)
        assert person.button("Edit the model").count() == 0
        person.context.close()
        assert person.foreign == []


def test_a_password_is_asked_for(browser: Any) -> None:
    stored = Stored("a run", "on almanac", None, ("",), (("PMET",),))
    with served(serving.make_app(None, (), stored, password="tarn")) as address:
        person = Visitor(browser, address)
        for word, seen in (("wrong", "Incorrect"), ("tarn", "PMET")):
            person.page.get_by_label("username").fill("anyone")
            person.page.get_by_label("password").fill(word)
            person.button("Login").click()
            person.sees(seen)
            assert word == "tarn" or person.page.get_by_text("PMET").count() == 0
        person.context.close()
        assert person.foreign == []
