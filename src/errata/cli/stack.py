"""`errata stack`: edits of one model in order, each taken out again; `errata log` lists, `errata diff` compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

import errata
from errata.cli import options, preparing
from errata.cli.edit import run_plan
from errata.cli.inputs import check_output, load_model, read_contexts, read_edit
from errata.cli.tables import counted, table
from errata.cli.terminal import Terminal, session
from errata.runtime import to_json
from errata.settings import DEFAULT_METHOD, load_presets, parse_assignments

if TYPE_CHECKING:
    from errata.edits import Stack

EDIT_EPILOG = options.examples(
    "errata stack edit my-stack almanac --name monday --facts monday.jsonl",
    "errata stack edit my-stack almanac --name tuesday --facts tuesday.jsonl --method two_site --preset almanac-stack",
    "errata evaluate almanac --facts monday.jsonl --edit my-stack",
)
ADD_EPILOG = options.examples("errata stack add my-stack my-edit --name monday")
REMOVE_EPILOG = options.examples("errata stack remove my-stack monday")
MERGE_EPILOG = options.examples(
    "errata stack merge my-stack --output my-edit", "errata export my-edit --output my-adapter"
)
LOG_EPILOG = options.examples("errata log my-stack")
DIFF_EPILOG = options.examples("errata diff my-edit my-other-edit", "errata diff my-stack my-edit --json")

Folder = Annotated[Path, typer.Argument(metavar="STACK", help="The folder of the stack.")]
Name = Annotated[
    str, typer.Option("--name", "-n", metavar="NAME", help="What the edit is called in the stack.")
]
Either = Annotated[Path, typer.Argument(help="An edit or a stack.")]


def edit(
    stack: Folder,
    model: options.Model,
    facts: options.Facts,
    name: Name,
    method: options.Method = DEFAULT_METHOD,
    preset: options.PresetName = None,
    settings: options.Settings = None,
    contexts: options.Contexts = None,
    covariance: options.Covariance = None,
    neighbors: preparing.NeighborsFrom = None,
    keep_unqualified: preparing.KeepUnqualified = False,
    preserve: preparing.Preserve = None,
    hold: Annotated[
        bool,
        typer.Option(
            "--hold/--no-hold", help="Let the keys of earlier edits enter K K^T, so that they hold."
        ),
    ] = True,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write FACTS on top of STACK (a new folder makes a new stack). Contradictions with earlier edits are refused."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        load_presets(method)
        from errata.edits import new_stack
        from errata.planning import BesideWords, SourceWords, kept_values

        read = errata.read_facts(facts)
        known = _checked_stack(stack, name, read)
        given, prefixes = parse_assignments(settings or []), read_contexts(contexts)
        sources = SourceWords(preset=preset, contexts=prefixes, covariance=covariance, seed=seed)
        beside = BesideWords(neighbors=neighbors, keep_unqualified=keep_unqualified, preserve=preserve)
        request = errata.EditRequest(
            read, method, given, hold=hold, keep_in=kept_values(), **sources, **beside
        )
        loaded = load_model(terminal, model, dtype, device, device_map)
        base = known or new_stack(stack, loaded)
        base.check_name(name)
        made, _ = run_plan(terminal, errata.prepare(loaded, replace(request, stack=base)), stack)
        changed = base.add(name, made, base.names)
        _tell(terminal, changed, f"{name} is edit {len(changed.entries)} of {stack}.")


def _checked_stack(folder: Path, name: str, facts: Sequence[errata.Fact]) -> Stack | None:
    """The stack of a folder, if the edit can be put on it; None where there is none yet."""
    from errata.edits import is_stack, open_stack

    if not is_stack(folder):
        check_output(folder)
        return None
    stack = open_stack(folder)
    stack.check_name(name)
    stack.check_facts(facts)
    return stack


def add(
    stack: Folder,
    edit: options.EditFolder,
    name: Name,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Put a finished EDIT of the same model on top of STACK. Contradictions with earlier edits are refused."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.edits import is_stack, new_stack, open_stack

        found = read_edit(edit)
        if not is_stack(stack):
            check_output(stack)
        base = open_stack(stack) if is_stack(stack) else new_stack(stack, found)
        changed = base.add(name, found)
        _tell(terminal, changed, f"{name} is edit {len(changed.entries)} of {stack}.")


def remove(
    stack: Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The edit's name in the stack.")],
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Take an edit out of STACK, wherever it stands; its folder is deleted."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.edits import open_stack

        before = open_stack(stack)
        leaning = before.leaning_on(name)
        changed = before.remove(name)
        if leaning:
            terminal.note(
                f"{', '.join(leaning)} {'was' if len(leaning) == 1 else 'were'} made with {name} in the weights, and "
                "may hold less well without it: errata evaluate tells."
            )
        _tell(terminal, changed, f"{name} is taken out of {stack}.")


def merge(
    stack: Folder,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="EDIT", help="The folder to write: a new one.")
    ],
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write all edits of STACK as one edit, which can be applied, evaluated and exported like any other."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.edits import open_stack

        check_output(output)
        found = open_stack(stack)
        found.merged().save(output)
        _tell(terminal, found, f"{output} is all of {stack} as one edit.")


def log(
    stack: Folder,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Tell the edits of STACK, the last one first."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.edits import open_stack

        found = open_stack(stack)
        edits = counted(len(found.entries), "edit")
        _tell(terminal, found, f"{stack}: {edits} on {found.model}, weights {found.fingerprint[:12]}.")


def diff(
    one: Either,
    other: Either,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compare two edits or stacks: their facts, and how far apart their changes of weights are."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.cli.comparing import compare

        found = compare(one, other)
        facts = table("Question", one.name, other.name)
        for row in found.facts:
            facts.add_row(row.question, row.one or "-", row.other or "-")
        told = f"{counted(found.same, 'fact')} in both; {counted(len(found.facts), 'difference')}."
        terminal.show(Text.assemble((f"{one} and {other}", "bold"), f": {told}"))
        if not found.same_model:
            terminal.show(Text("They are for different weights.", style="red"))
        if found.facts:
            terminal.show(facts)
        made = table("Weight", f">Norm, {one.name}", f">Norm, {other.name}", ">Norm of difference", ">Cosine")
        for row in found.weights:
            cells = (row.one, row.other, row.apart, row.cosine)
            made.add_row(row.path, *("-" if cell is None else f"{cell:.4g}" for cell in cells))
        terminal.show(made)
        terminal.result(found.to_json())


def _tell(terminal: Terminal, stack: Stack, sentence: str) -> None:
    terminal.show(sentence)
    made = table(">", "Edit", ">Facts", "Method", "Made", "On top of")
    for number, entry in reversed(list(enumerate(stack.entries, start=1))):
        below = ", ".join(entry.on_top_of)
        made.add_row(str(number), entry.name, str(entry.facts), entry.method, entry.created, below)
    terminal.show(made)
    terminal.result(
        {
            "stack": str(stack.folder),
            "model": stack.model,
            "fingerprint": stack.fingerprint,
            "edits": to_json(stack.entries),
        }
    )
