"""What a person takes along: the edits as an adapter, the report, the facts."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from errata.delivery import to_peft
from errata.errors import EditError, MissingExtra
from errata.experiments import token_texts, tokens_of
from errata.facts import write_facts
from errata.models import EditableModel
from errata.web.measuring import Measured


@dataclass(frozen=True)
class Files:
    """Where the files lie; None where one cannot be made, for the reason in `notes`."""

    facts: Path
    adapter: Path | None
    report: Path | None
    notes: tuple[str, ...] = ()


def write_files(folder: Path, model: EditableModel, measured: Measured) -> Files:
    """Write the files of all edits together into a folder that is not there yet."""
    folder.mkdir(parents=True)
    name = Path(model.name).name
    notes: list[str] = []
    facts = folder / f"{name}-facts.jsonl"
    write_facts(facts, measured.edit.facts)
    adapter: Path | None = folder / f"{name}-adapter.zip"
    try:
        _zip_adapter(folder / f"{name}-adapter", adapter, model, measured)
    except MissingExtra as error:
        adapter = None
        notes.append(str(error))
    except EditError as error:
        adapter = None
        notes.append(f"There is no adapter of these edits. {error}")
    report: Path | None = folder / f"{name}-report.html"
    try:
        report.write_text(_report(model, measured), encoding="utf-8")
    except ModuleNotFoundError as error:
        report = None
        notes.append(f"There is no report: {error.name} is not installed. pip install 'errata[report]'")
    return Files(facts, adapter, report, tuple(notes))


def _zip_adapter(folder: Path, file: Path, model: EditableModel, measured: Measured) -> None:
    to_peft(measured.edit, folder, model)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.iterdir()):
            packed.write(path, f"{folder.name}/{path.name}")


def _report(model: EditableModel, measured: Measured) -> str:
    from errata.report import results_page

    results = measured.results
    return results_page(results, f"Edits of {model.name}", token_texts(model, tokens_of(results)))
