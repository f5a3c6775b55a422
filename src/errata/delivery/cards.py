"""The README.md of an exported edit: what it makes the model say, how that was measured, how to load and remove it."""

import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from errata.errors import OutputExists
from errata.facts import Fact
from errata.models import ALMANAC
from errata.runtime import atomic_folder, write_json

README, ABOUT = "README.md", "edit.json"
SHOWN = 100
"""Facts in the card; all of them are in `edit.json`."""
MEASURED = {
    "efficacy_success": "Efficacy, success",
    "generalization_success": "Generalization, success",
    "specificity_success": "Specificity, success",
    "efficacy_accuracy": "Efficacy, accuracy",
    "generalization_accuracy": "Generalization, accuracy",
    "specificity_accuracy": "Specificity, accuracy",
}
LOADED_AS = {
    "peft": """\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(BASE)
model = PeftModel.from_pretrained(model, FOLDER)
```

`model.merge_and_unload()` then writes it into the weights.""",
    "safetensors": """\
Each tensor is what is to be added to the parameter of its name, in that parameter's own shape:

```python
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(BASE)
with torch.no_grad():
    for name, change in load_file(FOLDER + "/weight_diff.safetensors").items():
        model.get_parameter(name).add_(change)
```""",
}
REMOVED_BY = {
    "peft": "`model.unload()` gives the model back as it was; `with model.disable_adapter():` does so for a moment.",
    "safetensors": "Load the model again, which is exact. Subtracting the tensors leaves rounding in the last bits.",
}


@dataclass(frozen=True)
class Card:
    """What is told about an edit."""

    model: str
    revision: str | None
    fingerprint: str
    method: str
    created: str
    facts: Sequence[Fact]
    measured: Mapping[str, float]
    """Scores by "before.name" and "after.name", of the edit as it is exported; none where nothing was measured."""


@contextmanager
def exported(
    folder: str | os.PathLike[str],
    card: Card,
    about: Mapping[str, object],
    form: str,
    notes: Sequence[str] = (),
) -> Generator[Path]:
    """A folder to export into, all or nothing: it gets `README.md` and `edit.json` besides what is written inside.

    Raises:
        OutputExists: the folder is there already and not empty.
        OSError: it cannot be written; nothing is left behind.
    """
    try:
        with atomic_folder(folder) as aside:
            yield aside
            (aside / README).write_text(readme(card, form, Path(folder).name, notes), encoding="utf-8")
            write_json(aside / ABOUT, about)
    except OutputExists:
        raise
    except (SafetensorError, OSError) as error:
        raise OSError(
            f"The export cannot be written to {folder}: {error}. Is the disk full, or write-protected?"
        ) from error


def readme(card: Card, form: str, title: str, notes: Sequence[str] = ()) -> str:
    """The card as Markdown with the hub's header; `form` is "peft" or "safetensors"."""
    parts = [
        _header(card, form),
        f"# {title}",
        f"{len(card.facts)} corrected fact{'' if len(card.facts) == 1 else 's'} for `{card.model}`"
        f"{f' (revision `{card.revision}`)' if card.revision else ''}, written by {card.method} with Errata on "
        f"{card.created}. The weights that it belongs to have the fingerprint `{card.fingerprint[:12]}`.",
        *notes,
        "## Facts",
        _facts(card.facts),
        "## Measured",
        _measured(card.measured),
        "## How to load",
        _loading(card, form),
        "## How to remove",
        REMOVED_BY[form],
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _loading(card: Card, form: str) -> str:
    """How to load it; the embedded model is the only one that lies inside Errata."""
    code = LOADED_AS[form].replace("FOLDER", '"this/folder"')
    if card.model == ALMANAC:
        code = code.replace("```python\n", "```python\nfrom errata.loading import almanac_folder\n", 1)
        return code.replace("BASE", "almanac_folder()")
    return code.replace("BASE", json.dumps(card.model, ensure_ascii=False))


def _header(card: Card, form: str) -> str:
    lines = ["---", "tags:", "- model-editing", "- errata"]
    if form == "peft":
        lines += ["- lora", "library_name: peft"]
    if card.model != ALMANAC:
        lines.append(f"base_model: {json.dumps(card.model, ensure_ascii=False)}")
    return "\n".join([*lines, "---"])


def _facts(facts: Sequence[Fact]) -> str:
    if not facts:
        return "It is not known which facts these are."
    rows = ["| Question | Answer | Instead of |", "|---|---|---|"]
    for fact in facts[:SHOWN]:
        cells = (fact.question, fact.target_new, fact.target_true or "")
        rows.append(f"| {' | '.join(map(_cell, cells))} |")
    more = len(facts) - SHOWN
    if more > 0:
        rows.append(f"| ... and {more} more, in `edit.json` | | |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    """The text so that neither a table nor a page takes anything of it for its own."""
    flat = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return flat.replace("<", "&lt;").replace("`", "\\`")


def _measured(measured: Mapping[str, float]) -> str:
    names = [name for name in MEASURED if f"after.{name}" in measured]
    if not names:
        return "Nothing was measured: `errata evaluate` does."
    rows = ["| In %, over its facts | Before | After |", "|---|---:|---:|"]
    for name in names:
        before, after = (measured.get(f"{phase}.{name}") for phase in ("before", "after"))
        cells = ["-" if share is None else f"{100 * share:.1f}" for share in (before, after)]
        rows.append(f"| {MEASURED[name]} | {' | '.join(cells)} |")
    return "\n".join(rows)
