"""`errata calibrate`: the settings of a method for a model that nobody has edited before."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

import errata
from errata.cli import drawing, options
from errata.cli.bars import duration
from errata.cli.inputs import check_output, load_model
from errata.cli.tables import counted, table
from errata.cli.terminal import Terminal, session
from errata.errors import SettingsError
from errata.runtime import cache_root
from errata.settings import DEFAULT_METHOD, parse_assignments

if TYPE_CHECKING:
    from errata.calibrate import Calibration, CalibrationRequest, Measures, Trial

EPILOG = options.examples(
    "errata calibrate my-org/my-model",
    "errata calibrate ./my-model --method two_site --budget 30m --output calibrated",
    "errata calibrate ./my-model --facts counterfact --data-dir data --development 20 --held-out 40 --budget 2h",
    "errata edit ./my-model --facts facts.jsonl --output my-edit",
)
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def calibrate(
    model: options.Model,
    method: options.Method = DEFAULT_METHOD,
    facts: Annotated[
        Path | None,
        typer.Option(
            "--facts",
            "-f",
            metavar="FILE",
            help="Facts to choose from, as for `errata edit`; those that the model knows are used. Default: about 200 "
            "well-known facts of Errata's own.",
        ),
    ] = None,
    data_dir: drawing.DataDir = None,
    budget: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Time for everything: 90s, 10m, 2h; or 'none', until the search is done."
        ),
    ] = "10m",
    trials: Annotated[int | None, typer.Option(min=1, help="Trial edits, at most.")] = None,
    development: Annotated[int, typer.Option(min=2, help="Facts to search with.")] = 12,
    held_out: Annotated[int, typer.Option(min=2, help="Other facts to report on.")] = 12,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Report, numbers, picture and preset: a new folder. Default: none.",
        ),
    ] = None,
    settings: options.Settings = None,
    covariance: options.Covariance = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Find the settings with which METHOD edits MODEL best, and keep them as the preset that MODEL has from now on.

    Layers, strength of the write, clamp and learning rate are searched with trial edits of facts that MODEL knows, and
    the best settings are tested on other facts. Stopped and started again, the same command goes on.
    """
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        if output is not None:
            check_output(output)
        from errata.calibrate import CalibrationRequest, check_extra

        check_extra()
        request = CalibrationRequest(
            method=method,
            facts=None if facts is None else drawing.draw(terminal, facts, data_dir, None, seed, 1),
            settings=parse_assignments(settings or []),
            development=development,
            held_out=held_out,
            budget=seconds_of(budget),
            trials=trials,
            covariance=covariance,
            seed=seed,
        )
        found = _run(terminal, load_model(terminal, model, dtype, device, device_map), request)
        _report(terminal, found, output)


def seconds_of(text: str) -> float | None:
    """The seconds of `90s`, `10m`, `1.5h` or `600`; None for `none`.

    Raises:
        SettingsError: it is none of these.
    """
    if text == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or not float(match[1]):
        raise SettingsError(f"The budget {text!r} is no time. Write 90s, 10m, 2h or none.")
    return float(match[1]) * UNITS[match[2] or "s"]


def _run(terminal: Terminal, model: errata.EditableModel, request: CalibrationRequest) -> Calibration:
    """`errata.calibrate` with progress and a line for each trial; when stopped, the message says what is kept."""
    from errata.calibrate import calibrate

    try:
        with terminal.progress(f"Calibrating {request.method} for {model.name}") as on_progress:
            return calibrate(
                model, request, on_progress, lambda trial, best: _tell(terminal, trial, trial.number == best)
            )
    except KeyboardInterrupt:
        kept = cache_root() / "calibrations"
        raise KeyboardInterrupt(f"Finished trials are kept under {kept}: the same command goes on.") from None


def _tell(terminal: Terminal, trial: Trial, best: bool) -> None:
    """One trial in a line."""
    settings = ", ".join(f"{name}={value}" for name, value in trial.settings.items())
    words = f"Trial {trial.number} ({trial.stage}): score {trial.score:.1f}{', the best so far' * best}"
    terminal.note(f"{words}{f'; {settings}' if settings else ''}")


def _report(terminal: Terminal, found: Calibration, output: Path | None) -> None:
    """Install the preset if it is better on held-out facts, write the folder, and print what was found."""
    from errata.calibrate import install_preset, summary, verdict, write_report

    keep = found.held_out.improves
    preset = install_preset(found) if keep else None
    if output is not None:
        write_report(found, output)
    head = f"{counted(len(found.trials), 'trial')} in {duration(found.seconds)}"
    terminal.show(Text.assemble((found.model, "bold"), f", {found.request.method}: {head}"))
    terminal.show(_scores(found))
    terminal.show(_settings(found))
    terminal.show(verdict(found))
    if preset is not None:
        terminal.show(Text.assemble("The preset is used from now on: ", (str(preset), "bold")), wrap=False)
        terminal.note("`--preset default` edits without it.")
    else:
        terminal.note("No preset was installed: edits of this model stay as they are.")
    if output is not None:
        terminal.show(Text.assemble("Report and picture: ", (str(output), "bold")), wrap=False)
    places = {
        "preset": None if preset is None else str(preset),
        "output": None if output is None else str(output),
    }
    terminal.result({**summary(found), **places})


def _scores(found: Calibration) -> Table:
    """Held-out facts, before and after."""
    from errata.calibrate import COLUMNS

    made = table("Held-out facts", *(f">{name}" for name in COLUMNS.values()))
    held_out = found.held_out
    rows: dict[str, Measures | None] = {
        "unedited": held_out.unedited,
        f"as it comes ({found.base})": held_out.as_it_comes,
        "calibrated": held_out.calibrated,
    }
    for name, measures in rows.items():
        values = [None if measures is None else getattr(measures, column) for column in COLUMNS]
        made.add_row(name, *("-" if value is None else f"{value:.1f}" for value in values))
    return made


def _settings(found: Calibration) -> Table:
    made = table("Setting", "Calibrated")
    for name, value in found.best.settings.items():
        made.add_row(name, str(value))
    return made
