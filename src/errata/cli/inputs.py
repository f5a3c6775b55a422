"""What commands take in, checked before hours of work: the model, contexts, and the place of the output."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import errata
from errata.cli.terminal import Terminal
from errata.errors import ModelError, SettingsError
from errata.runtime import refuse_existing

logger = logging.getLogger(__name__)


def load_model(
    terminal: Terminal, name: str, dtype: str | None, device: str | None, device_map: str | None
) -> errata.EditableModel:
    """`errata.load`, with what transformers says kept to itself.

    Raises:
        ModelError: as `errata.load`, and for a device that is not there.
    """
    terminal.note(f"Loading {name} ...")
    _check_device(terminal, device, device_map)
    return quiet_load(name, dtype, device, device_map)


def quiet_load(
    name: str, dtype: str | None = None, device: str | None = None, device_map: str | None = None
) -> errata.EditableModel:
    """`errata.load` without the bars and remarks of transformers."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return errata.load(name, dtype=dtype, device=device, device_map=device_map)


def read_edit(folder: Path) -> errata.Edit:
    """`errata.stacks.open_edit`: an edit, or all of a stack as one."""
    from errata.edits import open_edit

    return open_edit(folder)


def read_contexts(path: Path | None) -> Sequence[str] | None:
    """The prefixes of `--contexts`: a JSON list of texts, the empty one first.

    Raises:
        SettingsError: there is no such file, or it holds something else.
    """
    if path is None:
        return None
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"There is no file of contexts {path}.") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"The contexts cannot be read from {path}: {error}.") from error
    texts = cast("list[object]", value) if isinstance(value, list) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise SettingsError(
            f'{path} is not a JSON list of texts. Write for example ["", "The weather is fine.", "I think."]: '
            "the empty text first."
        )
    return cast("list[str]", texts)


def check_output(path: Path) -> None:
    """Raise now where writing would fail later: something is there already, or the folder cannot be written to.

    Raises:
        OutputExists: it is there.
        OSError: it could not be made.
    """
    refuse_existing(path)
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise NotADirectoryError(
            f"{path} cannot be written: {above} is a file, not a folder. Name another output."
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{path} cannot be written: no permission to write to {above}. Name another output."
        )


def check_tracker(where: str | None) -> None:
    """Raise before hours of work where nothing could be logged.

    Raises:
        SettingsError: there is no such tracker.
        MissingExtra: its package is not installed.
    """
    if where is not None:
        from errata.report import check

        check(where)


def track(
    where: str | None, name: str, edit: errata.Edit | None = None, results: errata.Results | None = None
) -> None:
    """Log an edit and results where `--track` says; what goes wrong there is a warning, as the work is done."""
    if where is None:
        return
    from errata.report import Tracker

    try:
        with Tracker.of(where, name) as tracker:
            if edit is not None:
                tracker.edit(edit)
            if results is not None:
                tracker.results(results)
    except Exception as error:
        logger.warning("Nothing, or not all, was logged to %s: %s", where, error)


def check_extra() -> None:
    """Raise before hours of work where the report could not be written.

    Raises:
        SettingsError: the extra `report` is not installed.
    """
    try:
        import jinja2  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"The report needs {error.name}. Install it with: pip install 'errata[report]'"
        ) from None


def _check_device(terminal: Terminal, device: str | None, device_map: str | None) -> None:
    import torch

    if device is None:
        if device_map is None and torch.cuda.is_available():
            terminal.note("There is a GPU, and the model goes to the CPU: --device cuda uses it.")
        return
    try:
        torch.empty(1, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        raise ModelError(
            f"Device {device!r} cannot be used: {str(error).splitlines()[0]} Choose cpu, cuda, cuda:1, mps ..."
        ) from error
