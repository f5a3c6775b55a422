"""All commands, gathered."""

from __future__ import annotations

from typing import Annotated

import typer

import errata
from errata.cli import (
    apply,
    calibrate,
    covariance,
    demo,
    edit,
    evaluate,
    export,
    facts,
    locate,
    methods,
    metrics,
    models,
    options,
    reproduce,
    show,
    stack,
    tasks,
    train_editor,
    web,
)
from errata.cli.terminal import EXIT_CODES

HELP = (
    "Correct facts in language models: a file of facts in, an edit of the weights out, the proof beside it."
)
EPILOG = "\n".join(
    [
        options.examples(
            "errata demo", "errata edit almanac --facts facts.jsonl --output my-edit --evaluate"
        ),
        "",
        "[bold]Exit codes[/bold]",
        *(f"{code:5}  {meaning}" for code, meaning in EXIT_CODES.items()),
    ]
)
WIDE = {"help_option_names": ["--help", "-h"]}

app = typer.Typer(
    name="errata",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings=WIDE,
)
facts_app = typer.Typer(help="Look at files of facts.", no_args_is_help=True, rich_markup_mode="rich")
covariance_app = typer.Typer(
    help="Second moments of keys: measure, look, import.", no_args_is_help=True, rich_markup_mode="rich"
)
stack_app = typer.Typer(
    help="Edits of one model in order, each taken out again.", no_args_is_help=True, rich_markup_mode="rich"
)

app.command("demo", epilog=demo.EPILOG)(demo.demo)
app.command("edit", epilog=edit.EPILOG)(edit.edit)
app.command("show", epilog=show.EPILOG)(show.show)
app.command("evaluate", epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command("apply", epilog=apply.EPILOG)(apply.apply)
app.command("export", epilog=export.EPILOG)(export.export)
app.command("import", epilog=export.IMPORT_EPILOG)(export.import_)
app.add_typer(stack_app, name="stack")
app.command("log", epilog=stack.LOG_EPILOG)(stack.log)
app.command("diff", epilog=stack.DIFF_EPILOG)(stack.diff)
app.command("web", epilog=web.EPILOG)(web.web)
app.command("reproduce", epilog=reproduce.EPILOG)(reproduce.reproduce)
app.command("tasks", epilog=tasks.EPILOG)(tasks.tasks)
app.command("calibrate", epilog=calibrate.EPILOG)(calibrate.calibrate)
app.command("locate", epilog=locate.EPILOG)(locate.locate)
app.add_typer(facts_app, name="facts")
app.add_typer(covariance_app, name="covariance")
app.command("train-editor", epilog=train_editor.EPILOG)(train_editor.train_editor)
app.command("models", epilog=models.EPILOG)(models.models)
app.command("methods", epilog=methods.EPILOG)(methods.methods)
app.command("metrics", epilog=metrics.EPILOG)(metrics.metrics)
facts_app.command("check", epilog=facts.EPILOG)(facts.check)
facts_app.command("neighbors", epilog=facts.NEIGHBORS_EPILOG)(facts.neighbors)
facts_app.command("known", epilog=facts.KNOWN_EPILOG)(facts.known)
stack_app.command("edit", epilog=stack.EDIT_EPILOG)(stack.edit)
stack_app.command("add", epilog=stack.ADD_EPILOG)(stack.add)
stack_app.command("remove", epilog=stack.REMOVE_EPILOG)(stack.remove)
stack_app.command("merge", epilog=stack.MERGE_EPILOG)(stack.merge)
covariance_app.command("collect", epilog=covariance.COLLECT_EPILOG)(covariance.collect)
covariance_app.command("show", epilog=covariance.SHOW_EPILOG)(covariance.show)
covariance_app.command("import", epilog=covariance.IMPORT_EPILOG)(covariance.import_)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"errata {errata.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """All that comes before a command."""
