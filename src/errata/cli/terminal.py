"""The terminal as every command uses it: results to stdout, all else to stderr, errors as sentences and exit codes."""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import StringIO
from typing import NoReturn

import typer
from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.text import Text

from errata.cli.bars import Bars, Lines
from errata.errors import ErrataError, ProcessLost
from errata.runtime import WRITING, Progress, silent

DONE, PROBLEMS, BAD_INPUT, SYSTEM, STOPPED = 0, 1, 2, 3, 130
EXIT_CODES = {
    DONE: "done",
    PROBLEMS: "the thing that was checked has problems (facts check)",
    BAD_INPUT: "wrong usage or bad input: the message says what, where and what to do",
    SYSTEM: "the system failed: disk full, no permission, out of memory",
    STOPPED: "stopped with Ctrl-C; nothing half-written is left behind",
}
"""docs/cli.md and `errata --help` show these."""
MAIN_SPEAKS = 2.0
"""Seconds that another process waits for the main one to tell of an error first."""
PIPE_WIDTH = 100
"""Columns of what is printed into a file or a pipe."""


@dataclass(frozen=True)
class Terminal:
    """Where a command's words go. With `as_json` the result is one JSON object instead of words."""

    out: Console
    err: Console
    quiet: bool
    as_json: bool

    def show(self, part: RenderableType, wrap: bool = True) -> None:
        """Print a part of the result for people; without `wrap` lines stay whole, so that they can be copied.

        Brackets in texts are taken as they are, never as markup.
        """
        if not self.as_json:
            self.out.print(part, soft_wrap=not wrap)

    def result(self, value: Mapping[str, object]) -> None:
        """Print the whole result for programs."""
        if self.as_json:
            self.out.file.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def note(self, text: str) -> None:
        """Say on stderr what is going on or what to do next."""
        if not self.quiet:
            self.err.print(Text(text, style="dim"), soft_wrap=True)

    @contextmanager
    def progress(self, task: str) -> Generator[Progress, None, None]:
        """A listener for `on_progress`; `task` says what is going on as a whole."""
        if self.quiet:
            yield silent
        elif self.err.is_terminal:
            with Bars(self.err, task) as bars:
                yield bars
        else:
            yield Lines(self.err)


@contextmanager
def session(
    *, seed: int, quiet: bool, as_json: bool, together: bool = False
) -> Generator[Terminal, None, None]:
    """The terminal of one command. Errors inside become a message on stderr and an exit code.

    Of several processes that torchrun has started one alone speaks; with `together` the others help it
    (`errata.processes`), otherwise they end at once.

    Raises:
        typer.Exit: with one of `EXIT_CODES`.
    """
    random.seed(seed)
    helping = _helping()
    if helping and not together:
        raise typer.Exit(DONE)
    out = Console(file=StringIO()) if helping else _console(stderr=False)
    terminal = Terminal(out, _console(stderr=True), quiet or helping > 0, as_json)
    with _warnings_shown(terminal.err, logging.ERROR if helping else logging.WARNING):
        try:
            with _joined(together):
                yield terminal
        except KeyboardInterrupt as stop:
            if helping:
                raise typer.Exit(STOPPED) from None
            terminal.err.print(Text(f"Stopped. {stop}".strip(), style="yellow"), soft_wrap=True)
            raise typer.Exit(STOPPED) from None
        except ProcessLost as error:
            _fail(terminal.err, f"{_who(helping)}{str(error) if not helping else 'stops as well.'}", SYSTEM)
        except ErrataError as error:
            _wait_for_main(helping)
            _fail(terminal.err, f"{_who(helping)}{error}", BAD_INPUT)
        except BrokenPipeError:
            raise
        except Exception as error:
            if not is_system_failure(error):
                raise
            _wait_for_main(helping)
            _fail(terminal.err, f"{_who(helping)}{_system_message(error)}", SYSTEM)


def is_main() -> bool:
    """Whether this process writes files: of several the first, of one that one."""
    return not _helping()


def _helping() -> int:
    """The number of this process among those that torchrun has started."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def _joined(together: bool) -> AbstractContextManager[None]:
    """Inside, the processes that torchrun has started share their work."""
    if not together or "TORCHELASTIC_RUN_ID" not in os.environ:
        return nullcontext()
    from errata.runtime.processes import joined

    return joined()


def _who(helping: int) -> str:
    return f"Process {helping}: " if helping else ""


def _wait_for_main(helping: int) -> None:
    """What is wrong with the input the main process says alone: torchrun then ends the others.

    Raises:
        typer.Exit: this process was told to end.
    """
    if not helping:
        return
    from errata.runtime.processes import told_to_end

    time.sleep(MAIN_SPEAKS)
    if told_to_end():
        raise typer.Exit(BAD_INPUT)


def is_system_failure(error: Exception) -> bool:
    """Whether the machine failed, and neither the input nor Errata did."""
    from safetensors import SafetensorError

    # torch's own error is told by its name: where it was raised torch is loaded, elsewhere it need not be.
    return isinstance(error, OSError | MemoryError | SafetensorError) or (
        type(error).__name__ == "OutOfMemoryError"
    )


@contextmanager
def no_warnings() -> Generator[None, None, None]:
    """Inside, the library's warnings are not shown."""
    logger = logging.getLogger("errata")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _warnings_shown(err: Console, level: int) -> Generator[None, None, None]:
    """What the library logs goes to stderr, above the progress bars."""
    handler = RichHandler(level, err, show_time=False, show_path=False, highlighter=None)
    logger = logging.getLogger("errata")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def _fail(err: Console, message: str, code: int) -> NoReturn:
    err.print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)
    raise typer.Exit(code) from None


def _system_message(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno in WRITING and error.filename is not None:
        return f"{error.filename}: {error.strerror}. Is the disk full, or write-protected?"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"Out of memory ({text.splitlines()[0]}). Load the model in half precision (--dtype bfloat16), spread it "
            "over devices (--device-map auto), or edit fewer facts at once."
        )
    return text
