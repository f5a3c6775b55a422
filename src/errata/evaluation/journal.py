"""What an evaluation has found so far, batch by batch, so that one that is killed goes on where it was.

One line a batch: the SHA-256 of the rest of the line, what the batch was, and what was found, as JSON. A line that was
cut off or damaged counts as nothing. The file is removed when the evaluation is done.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from errata import __version__
from errata.edits import Edit
from errata.models import EditableModel
from errata.runtime import Progress, digest_of, silent

logger = logging.getLogger(__name__)


@dataclass
class Journal:
    """The finished batches of one evaluation; without a file it keeps nothing."""

    file: Path | None = None
    known: dict[str, Any] = field(default_factory=dict[str, Any])
    state: str = ""
    """Which weights are asked, as text: batches of other weights are others."""

    @classmethod
    def of(cls, folder: Path, model: EditableModel) -> "Journal":
        """The journal in `folder` of evaluations of this model, with what an earlier run left in it."""
        recipe = [
            __version__,
            torch.__version__,
            str(model.dtype),
            str(model.device),
            model.measure_fingerprint(),
        ]
        file = folder / f"{digest_of(recipe)}.jsonl"
        return cls(file, _read(file) if file.is_file() else {})

    def enter(self, edit: Edit) -> None:
        """From here on the weights are those of the model with this edit."""
        self.state = _tensors_digest(edit)

    def recall(self, job: object, find: Callable[[], Any]) -> Any:
        """What was found for a job, of which JSON says all that the answer depends on; found now, if it is not known.

        What `find` returns must be of JSON's own types; tuples come back as lists.
        """
        if self.file is None:
            return find()
        key = digest_of([self.state, job])
        if key in self.known:
            return self.known[key]
        found = find()
        self._append(self.file, json.dumps([key, found]))
        return found

    def close(self) -> None:
        """The evaluation is done."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def _append(self, file: Path, rest: str) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as lines:
                # The line ends the one before it, which may have been cut off.
                lines.write(f"\n{digest_of(rest)} {rest}")
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s): if this evaluation is killed, it begins anew.",
                file,
                error.strerror,
            )
            self.file = None


@dataclass(frozen=True)
class Stage:
    """One stage of an evaluation: its name, who hears of its progress, and where its finished batches are kept."""

    name: str
    on_progress: Progress = silent
    journal: Journal = field(default_factory=Journal)

    def report(self, done: int, total: int) -> None:
        """Say that so many of its prompts are done."""
        self.on_progress(self.name, done, total)


def _read(file: Path) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
        digest, _, rest = line.partition(" ")
        if rest and digest_of(rest) == digest:
            key, known_value = json.loads(rest)
            known[key] = known_value
    return known


def _tensors_digest(edit: Edit) -> str:
    digest = hashlib.sha256()
    for path, delta in sorted(edit.deltas.items()):
        parts: Mapping[str, torch.Tensor] = delta.tensors
        for name, part in sorted(parts.items()):
            digest.update(f"{path}.{name} {part.dtype} {list(part.shape)}".encode())
            digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
