"""A group of questions is declared once: then it is asked, scored, stored, and shown in every table and page."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from errata.cli.tables import score_blocks
from errata.evaluation.evaluate import evaluate
from errata.report.page import results_page
from errata.results.groups import GROUPS, Ask, PageSection, QuestionGroup
from errata.results.metrics import REGISTRY
from errata.results.results import load_results
from errata.results.scores import LABELS, METRICS, add_group
from errata.web import fragments
from errata.web.measuring import Line, shown_groups
from errata.web.stored import open_run
from evaluation_cases import FACTS, exact_model

SHOUTED = QuestionGroup(
    name="shouted",
    label="Shouted prompt",
    ask=lambda fact, _: (Ask(fact.question.upper(), fact.target_new, fact.target_true),),
    field="prompt in capital letters",
    asked="the prompt in capital letters",
    definition="1 if the answer is the likeliest one after the prompt in capital letters.",
    page=PageSection(
        "shouted", "Asked in capital letters", "likelier when shouted", "likeliest when shouted"
    ),
)


@pytest.fixture(params=["classic", "trustworthy"])
def group(request: pytest.FixtureRequest) -> Iterator[QuestionGroup]:
    """The group, declared for one test."""
    registries = cast(list[dict[str, Any]], [GROUPS, REGISTRY, METRICS, LABELS])
    before = [dict(registry) for registry in registries]
    added = replace(SHOUTED, block=request.param)
    add_group(added)
    yield added
    for registry, rows in zip(registries, before, strict=True):
        registry.clear()
        registry.update(rows)


def test_a_new_group_is_asked_scored_stored_and_shown(group: QuestionGroup, tmp_path: Path) -> None:
    results = evaluate(exact_model("gpt2"), FACTS[:2], generate=False, trustworthy=False)
    questions = [record.after.group("shouted") for record in results.records]
    assert [[one.prompt for one in each] for each in questions] == [
        ["THE CAPITAL OF FRANCE IS"],
        ["JONAS LIVES IN"],
    ]
    kinds = ["success", "accuracy", "token_accuracy"] if group.block == "classic" else ["accuracy"]
    scores = {name: score for name, score in results.scores().items() if name.startswith("shouted")}
    assert list(scores) == [f"shouted_{kind}" for kind in kinds]
    assert all(score is not None and score.count == 2 for score in scores.values())

    assert load_results(results.save(tmp_path / "results")) == results
    printed = io.StringIO()
    Console(file=printed, width=200).print(*score_blocks(results))
    assert printed.getvalue().count("Shouted prompt") == 1
    html = results_page(results, "A page", {})
    assert '"shouted": "Shouted prompt"' in html
    assert "THE CAPITAL OF FRANCE IS" in html
    assert "Shouted prompt, accuracy" in html

    assert group in shown_groups()
    stored = open_run(tmp_path / "results")
    lines: list[Line] = [line for line in stored.lines if line.kind == "shouted"]
    assert [line.question for line in lines] == ["THE CAPITAL OF FRANCE IS", "JONAS LIVES IN"]
    assert not any(line.stays for line in lines)
    assert "Asked in capital letters" in fragments.lines(lines)
    assert "likeliest when shouted" in fragments.scores(results)


def test_results_without_the_new_group_are_read(group: QuestionGroup, tmp_path: Path) -> None:
    del GROUPS[group.name]
    results = evaluate(exact_model("gpt2"), FACTS[:1], generate=False, trustworthy=False)
    file = results.save(tmp_path / "results.jsonl")
    assert "others" not in file.read_text(encoding="utf-8")
    GROUPS[group.name] = group
    again = load_results(file)
    assert again == results
    assert again.records[0].after.group("shouted") == ()
    assert again.scores()["shouted_accuracy"] is None


def test_a_name_is_taken_once(group: QuestionGroup) -> None:
    with pytest.raises(ValueError, match="already"):
        add_group(group)


def test_every_group_says_where_its_questions_come_from() -> None:
    for name, group in GROUPS.items():
        assert name == group.name
        assert group.field
        assert f"{name}_accuracy" in REGISTRY
        assert REGISTRY[f"{name}_accuracy"].block == group.block
        assert group.asked if group.block == "classic" else group.definition
