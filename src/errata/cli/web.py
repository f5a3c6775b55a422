"""`errata web`: a page where people edit a model and see what moved."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from errata.cli import options
from errata.cli.demo_facts import famous_facts
from errata.cli.inputs import load_model
from errata.cli.terminal import Terminal, session

if TYPE_CHECKING:
    import errata
    from errata.web import Session, Stored

EPILOG = options.examples(
    "errata web",
    "errata web my-org/my-model --device cuda --port 8000",
    "errata web --open my-results",
    "ERRATA_WEB_PASSWORD=... errata web --host 0.0.0.0",
)
ALMANAC = "almanac"
EXAMPLES = 24
PASSWORD = "ERRATA_WEB_PASSWORD"


def web(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="A hub id, a local folder, or 'almanac', which is the default."
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 7860,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Another than this machine's own needs a password.")
    ] = "127.0.0.1",
    password: Annotated[
        str | None,
        typer.Option(metavar="WORD", envvar=PASSWORD, help="Asked for by the page, with any name."),
    ] = None,
    stored: Annotated[
        Path | None,
        typer.Option(
            "--open",
            metavar="RESULTS",
            help="Show a stored run: a folder of errata evaluate, edit --evaluate or reproduce. No model is loaded "
            "unless one is named.",
        ),
    ] = None,
    covariance: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Second moments of the keys. Default: measured with the first edit, and kept in the user's cache.",
        ),
    ] = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Serve a page where MODEL is edited: type facts, see what it says, edit, compare, undo, download."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.web import serving

        serving.check_host(host, password)
        serving.check_gradio()
        with serving.bind(host, port) as taken, ExitStack() as opened:
            run = None if stored is None else _stored(stored)
            people = None
            if model is not None or stored is None:
                loaded = load_model(terminal, model or ALMANAC, dtype, device, device_map)
                people = opened.enter_context(closing(_session(loaded, covariance, seed)))
            examples = famous_facts(EXAMPLES, seed) if people and people.model.name == ALMANAC else []
            app = serving.make_app(people, examples, run, host=host, password=password)
            _say_where(terminal, host, taken.getsockname()[1])
            serving.serve(app, taken)


def _stored(folder: Path) -> Stored:
    from errata.web import open_run

    return open_run(folder)


def _session(model: errata.EditableModel, covariance: Path | None, seed: int) -> Session:
    from errata.web import Session

    return Session(model, covariance, seed)


def _say_where(terminal: Terminal, host: str, port: int) -> None:
    """Print the page's address at once, whoever reads."""
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    terminal.show(Text.assemble("Errata is at ", (address, "bold"), ". Ctrl-C stops it."))
    terminal.result({"address": address})
    terminal.out.file.flush()
