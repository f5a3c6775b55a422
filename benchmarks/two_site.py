"""The two-site method on Almanac, table by table: `python benchmarks/two_site.py TABLE --output DIR`.

Tables: `ablations` (every ingredient taken away or changed, one at a time), `prompts` (what a fact needs to bring),
`compare` (with the other methods, 1 to 1,000 edits), `models` (the comparison at 100 edits, for `--model FOLDER`).

Choices are made on `--half development` and reported on `--half held-out`. Cells are stored as they are done, as in
almanac_methods.py: killed and started again with the same `--output`, the program goes on.

What a file brings beside its prompts is said by a row's `beside`: "file", what the command line makes of the file's
own templates (for the two-site method); "given", what a user may write (other wordings of the question and the
subject's own other relations); "foreign", relations that the subject lacks; "none".
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from almanac_methods import DRAWN, DRAWS, Row, named, number, run_cell
from almanac_methods import line as scores_line

import errata
from errata.almanac import corpus_texts, load_world, world_facts
from errata.facts import Fact, with_edit_prompts, with_preserve_prompts, wording
from errata.models import EditableModel
from errata.moments import collect, corpus_identity, embedded_corpus, moment_path
from errata.moments import corpus_texts as read_corpus
from errata.results import load_results, score_records
from errata.settings import parse_assignments
from errata.strategies import Strategy

Beside = Literal["file", "given", "foreign", "none"]
PRESET = "almanac"
"""For every Almanac, however its folder is called."""
NOTHING: Mapping[str, object] = {}
TEXTS = 2000
"""Of the corpus, for another Almanac's second moments: all."""


@dataclass(frozen=True, kw_only=True)
class Line(Row):
    """A row, and what its facts bring beside their prompts."""

    beside: Beside = "file"
    wordings: Beside | None = None
    """The same of other wordings, where it differs."""
    wording_count: int = 4


def two(
    name: str,
    settings: Mapping[str, object] = NOTHING,
    beside: Beside = "file",
    wordings: Beside | None = None,
) -> Line:
    """The two-site method with some settings changed."""
    return Line(
        name=name, method="two_site", settings=settings, preset=PRESET, beside=beside, wordings=wordings
    )


def other(name: str, method: str, settings: Mapping[str, object] = NOTHING, preset: str = PRESET) -> Line:
    """Another method."""
    return Line(name=name, method=method, settings=settings, preset=preset)


EARLY = {
    "values.preserve": "subject",
    "values.preserve_weight": 3.0,
    "values.preserve_rows": 8,
    "values.neighbor_weight": 0.2,
    "solve.covariance_weight": 1000.0,
}
"""What the preset gives the early site, for MEMIT alone."""
LATE = {
    "lookup": "prompt_last",
    "layers": "7-9",
    "solve.covariance_weight": 30.0,
    "keys.templates": 4,
    "keys.preserve": "both",
    "keys.preserve_weight": 0.1,
    "values.kl_weight": 0.0,
}
"""The same of the late site."""
TWICE = Strategy(iterations=2, stop="never")
TWO = two("two sites")
AGAIN = replace(TWO, name="two sites, 2 iterations", strategy=TWICE)
ABLATIONS = (
    TWO,
    other("the early write alone", "memit", EARLY),
    other("the early write alone, lambda 100", "memit", {**EARLY, "solve.covariance_weight": 100.0}),
    other("the late write alone", "memit", LATE),
    two("early lambda 300", {"early.solve.covariance_weight": 300.0}),
    two("early lambda 3000", {"early.solve.covariance_weight": 3000.0}),
    two("no KL rows", {"early.values.preserve": "none"}),
    two("KL rows on the subject's own relations", beside="given", wordings="file"),
    two("KL rows on relations it lacks", beside="foreign", wordings="file"),
    two("2 KL rows", {"early.values.preserve_rows": 2}),
    two("weight 1 of the KL rows", {"early.values.preserve_weight": 1.0}),
    two("no neighbor term", {"early.values.neighbor_weight": 0.0}),
    two("no preserved keys", {"late.keys.preserve": "none"}),
    two("preserved keys of the relation alone", {"late.keys.preserve": "relation"}),
    two("preserved keys of the subject alone", {"late.keys.preserve": "subject"}),
    two("weight 1 of preserved keys", {"late.keys.preserve_weight": 1.0}),
    two("one wording in the keys", {"late.keys.templates": 0}),
    two(
        "PMET's value, late",
        {"late.values.optimize": "attention,ffn", "late.values.learning_rate": 0.1, "late.values.clamp": 4.0},
    ),
    two("early layers 3-4", {"early.layers": "3-4"}),
    two("early layers 1-5", {"early.layers": "1-5"}),
    two("late layers 8-9", {"late.layers": "8-9"}),
    two("late layers 5-9", {"late.layers": "5-9"}),
    two("late lambda 100", {"late.solve.covariance_weight": 100.0}),
    AGAIN,
)
PROMPTS = (
    two("the prompt alone", beside="none"),
    two("the file's own templates"),
    two("KL rows of the file, no other wordings", wordings="none"),
    two("what a user may write", beside="given"),
)
OTHERS = (
    other("MEMIT", "memit"),
    other("PMET", "pmet"),
    replace(other("PMET, 3 iterations", "pmet"), strategy=Strategy(iterations=3, stop="never")),
    other("NA_PMET", "pmet", {"values.neighbor_weight": 1.0}),
    other("AlphaEdit", "alphaedit"),
    other("FT local", "finetune", preset="local"),
    other("MEMIT, preserve", "memit", {"values.preserve": "subject", "values.preserve_weight": 3.0}),
)
MODELS = (TWO, AGAIN, *OTHERS[:2], OTHERS[-1], *ABLATIONS[1:4])
TABLES: dict[str, tuple[tuple[Line, ...], tuple[int, ...]]] = {
    "ablations": (ABLATIONS, (100,)),
    "prompts": (PROMPTS, (1, 10, 100)),
    "compare": ((TWO, AGAIN, *OTHERS), (1, 10, 100, 1000)),
    "models": (MODELS, (100,)),
}


def main() -> None:
    """Run what is not stored yet, then print the table."""
    arguments = parsed()
    lines, counts = TABLES[arguments.table] if arguments.table != "try" else ((tried(arguments),), (100,))
    lines = tuple(one for one in lines if not arguments.rows or one.name in arguments.rows)
    counts = arguments.edits or counts
    folder = arguments.output / arguments.table
    if not arguments.print:
        model = errata.load(arguments.model)
        arguments.covariance = moments_of(model, arguments)
        texts = corpus_texts(0, 50, held_out=True)
        for count in counts:
            for seed in arguments.seeds:
                for one in lines:
                    for draw in range(DRAWS.get(count, 1)):
                        cell = folder / f"{one.name}-{count}-seed{seed}-draw{draw}"
                        if not named(cell, ".json").exists():
                            facts = prepared(drawn(arguments.half, count, seed, draw), one, seed)
                            run_cell(model, facts, one, seed, cell, False, arguments, texts)
    print(markdown(folder, lines, counts, arguments.seeds))


def moments_of(model: EditableModel, arguments: argparse.Namespace) -> Path | None:
    """Second moments of another Almanac, measured once over its corpus; the embedded one brings its own."""
    if arguments.model == "almanac":
        return None
    folder = arguments.output / "moments"
    sites = [model.site("ffn", layer) for layer in range(1, model.layers)]
    if not moment_path(folder, sites[-1].path).exists():
        corpus = str(embedded_corpus())
        texts = read_corpus(corpus)
        collect(model, sites, texts, folder=folder, corpus=corpus_identity(corpus), samples=TEXTS)
    return folder


def tried(arguments: argparse.Namespace) -> Line:
    """A row of the command line."""
    method, beside = arguments.method, arguments.beside
    settings = parse_assignments(arguments.set)
    name = " ".join([method, beside, arguments.wordings or beside, *arguments.set])
    preset = "local" if method == "finetune" else PRESET
    return Line(
        name=name.replace("/", "_"),
        method=method,
        settings=settings,
        preset=preset,
        beside=beside,
        wordings=arguments.wordings,
    )


def drawn(half: str, count: int, seed: int, draw: int) -> list[Fact]:
    """The facts of a cell: the same for every row."""
    return world_facts(half, DRAWN, seed)[draw * count :][:count]


def prepared(facts: Sequence[Fact], row: Line, seed: int) -> list[Fact]:
    """The facts with what the row says that their file brings."""
    wordings = row.wordings or row.beside
    if row.beside == "foreign":
        own = {fact.case_id: fact for fact in world_facts("all", preserve="foreign")}
        facts = [replace(fact, preserve_prompts=own[fact.case_id].preserve_prompts) for fact in facts]
    elif row.beside != "given":
        facts = [replace(fact, preserve_prompts=()) for fact in facts]
    source = [replace(fact, edit_prompts=()) for fact in facts]
    if row.beside == "file":
        facts = with_preserve_prompts(facts, ROWS, seed, source)
    if wordings == "file":
        facts = with_edit_prompts(facts, row.wording_count, seed, source)
    elif wordings == "given":
        facts = [replace(fact, edit_prompts=other_wordings(fact)) for fact in facts]
    return list(facts)


ROWS = 8
"""How many preserve_prompts a fact gets; a method's `preserve_rows` says how many of them are used."""


def other_wordings(fact: Fact) -> tuple[str, ...]:
    """The relation's templates that evaluation does not ask: what a user may write down."""
    asked = {fact.question, *fact.paraphrase_prompts}
    templates = load_world().relations[str(fact.relation_id)].templates
    free = [
        one for one in templates if not any(text.endswith(wording.fill(one, fact.subject)) for text in asked)
    ]
    return tuple(free)


HEAD = (
    "edits",
    "method",
    "efficacy / generalization / specificity, success",
    "the same, accuracy",
    "same subject, accuracy",
    "unrelated, accuracy",
    "score, success",
    "score, accuracy",
    "behind 50 tokens, accuracy",
    "reversed, accuracy",
    "two hops, accuracy",
    "perplexity",
    "CPU s a fact",
)
TRUSTWORTHY = ("prefixed_accuracy", "reversed_accuracy", "two_hop_accuracy")


def markdown(folder: Path, lines: Iterable[Line], counts: Iterable[int], seeds: Sequence[int]) -> str:
    """The Markdown table of everything stored: means and 95 % intervals over all facts of all draws and seeds."""
    text = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for count in counts:
        for one in lines:
            pattern = f"{glob_safe(one.name)}-{count}-seed{{}}-draw*.json"
            cells = [cell for seed in seeds for cell in sorted(folder.glob(pattern.format(seed)))]
            if cells:
                text.append(f"| {count} (x{len(cells)}) | {one.name} | {scores_of(cells, count)} |")
    return "\n".join(text)


def scores_of(cells: Sequence[Path], count: int) -> str:
    """The columns from the third on."""
    found = [load_results(cell.with_name(f"{cell.stem}.jsonl")) for cell in cells]
    records = [record for results in found for record in results.records]
    texts = [text for results in found for text in results.texts.get("after", ())]
    scores = score_records(records, "after", texts)
    perplexity = scores["me_ppl_50"]
    spent = sum(json.loads(cell.read_text()).get("cpu_seconds", 0.0) for cell in cells) / (count * len(cells))
    columns = [
        scores_line(records),
        *(number(scores[name]) for name in TRUSTWORTHY),
        "-" if perplexity is None else f"{perplexity.mean:.2f}",
        f"{spent:.2f}",
    ]
    return " | ".join(columns)


def glob_safe(name: str) -> str:
    """A name as a pattern that fits itself alone."""
    return "".join(f"[{sign}]" if sign in "[]*?" else sign for sign in name)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=[*TABLES, "try"])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="almanac", help="a folder of another Almanac")
    parser.add_argument("--half", choices=("development", "held-out"), default="held-out")
    parser.add_argument("--rows", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--edits", nargs="+", type=int, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--generate", action="store_true", help="also let the model write freely")
    parser.add_argument("--print", action="store_true", help="print what is stored, run nothing")
    parser.add_argument("--method", default="two_site", help="of `try`, a row of the command line")
    parser.add_argument("--beside", default="file", help="of `try`")
    parser.add_argument("--wordings", default=None, help="of `try`")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="of `try`")
    return parser.parse_args()


if __name__ == "__main__":
    main()
