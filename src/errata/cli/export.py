"""`errata export`: an edit for programs that know nothing of Errata. `errata import`: an adapter as an edit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

import errata
from errata.cli import options
from errata.cli.inputs import check_output, load_model, read_edit
from errata.cli.tables import counted, percent, scores_json, scores_measured, table
from errata.cli.terminal import Terminal, session
from errata.errors import SettingsError
from errata.results import Results

if TYPE_CHECKING:
    from errata.delivery import Cut

EPILOG = options.examples(
    "errata export my-edit --format peft --output my-adapter",
    "errata export my-edit --format peft --rank 4 --facts facts.jsonl --output my-adapter",
    "errata export my-edit --format safetensors --output my-diff",
)
IMPORT_EPILOG = options.examples("errata import my-adapter --model almanac --output my-edit")
ASKED = (
    "efficacy_success",
    "efficacy_accuracy",
    "generalization_success",
    "generalization_accuracy",
    "specificity_success",
    "specificity_accuracy",
)


def export(
    edit: options.EditFolder,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write: a new one.")
    ],
    form: Annotated[
        Literal["peft", "safetensors"],
        typer.Option(
            "--format",
            help="peft: a LoRA adapter, exact. safetensors: by parameter name what is to be added to it.",
        ),
    ] = "peft",
    rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="R",
            help="Keep at most so many directions of each weight's change, and say what that costs.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Where the edited model lies. Default: where it lay when edited."),
    ] = None,
    facts: Annotated[
        Path | None,
        typer.Option(
            "--facts",
            "-f",
            metavar="FILE",
            help="Measure with these facts what --rank costs in efficacy, generalization and specificity.",
        ),
    ] = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write EDIT as a LoRA adapter that PEFT loads, or as plain differences of weights, with a README of its facts."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        check_output(output)
        if form != "peft" and rank is not None:
            raise SettingsError("--rank belongs to --format peft: differences of weights are always whole.")
        if facts is not None and rank is None:
            raise SettingsError(
                "--facts belongs to --rank: without it nothing is lost, so nothing is measured."
            )
        from errata.delivery import to_peft

        asked = None if facts is None else errata.read_facts(facts)
        found = read_edit(edit)
        if form == "safetensors":
            _differences(terminal, found, model, output)
            return
        cost = None
        if rank is not None and asked is not None:
            cost = _Cost.measure(terminal, model or found.origin.model, found, rank, asked)
        cuts = to_peft(
            found, output, _modules(found, model), rank, None if cost is None else scores_measured(cost.cut)
        )
        _report(terminal, found, cuts, cost, output)


def import_(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="A folder that PEFT wrote.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="The model that the adapter was made for.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="EDIT", help="The folder to write: a new one.")
    ],
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Take a LoRA adapter as an edit, which can be shown, evaluated, stacked and taken back like any other."""
    with session(seed=seed, quiet=quiet, as_json=as_json) as terminal:
        from errata.delivery import from_peft

        check_output(output)
        found = from_peft(adapter, load_model(terminal, model, None, None, None))
        found.save(output)
        weights = counted(len(found.deltas), "weight")
        terminal.show(
            Text.assemble((str(output), "bold"), f" is {adapter} as an edit of {model}: {weights} changed.")
        )
        terminal.result(
            {"edit": str(output), "model": model, "facts": len(found.facts), "weights": list(found.deltas)}
        )


def _modules(edit: errata.Edit, model: str | None) -> errata.EditableModel:
    from errata.models import load_without_weights

    return load_without_weights(model or edit.origin.model)


@dataclass(frozen=True)
class _Cost:
    """The scores of the whole edit, and of what is left of it."""

    whole: Results
    cut: Results

    @staticmethod
    def measure(
        terminal: Terminal, model: str, edit: errata.Edit, rank: int, facts: list[errata.Fact]
    ) -> _Cost:
        from errata.delivery import cut

        loaded = load_model(terminal, model, None, None, None)
        deltas = {path: cut(delta, rank).delta for path, delta in edit.deltas.items()}
        results: list[Results] = []
        for what, one in (("Evaluating the edit", edit), ("and the adapter", replace(edit, deltas=deltas))):
            with terminal.progress(what) as on_progress:
                results.append(
                    errata.evaluate(
                        loaded, facts, one, on_progress=on_progress, generate=False, trustworthy=False
                    )
                )
        return _Cost(*results)

    def table(self) -> Table:
        """Success and accuracy before, with the whole edit, and with the adapter."""
        made = table(
            "", ">Before", ">Edit", ">Adapter", title="What the rank costs, in %, with 95 % intervals"
        )
        for row in self.whole.table():
            if row.name in ASKED:
                cells = (row.before, row.after, self.cut.scores().get(row.name))
                made.add_row(row.label, *map(percent, cells))
        return made

    def to_json(self) -> dict[str, object]:
        """The scores of both, for programs."""
        return {"edit": scores_json(self.whole), "adapter": scores_json(self.cut)}


def _differences(terminal: Terminal, edit: errata.Edit, model: str | None, output: Path) -> None:
    from errata.delivery import DIFF, to_weights

    to_weights(edit, output, _modules(edit, model))
    terminal.show(
        Text.assemble(
            (str(output / DIFF), "bold"),
            f" holds what {counted(len(edit.facts), 'fact')} add to {counted(len(edit.deltas), 'weight')} of "
            f"{edit.origin.model}.",
        )
    )
    terminal.result({"output": str(output), "format": "safetensors", "weights": list(edit.deltas)})
    terminal.note(f"How to load it is told in {output / 'README.md'}")


def _report(
    terminal: Terminal, edit: errata.Edit, cuts: dict[str, Cut], cost: _Cost | None, output: Path
) -> None:
    from errata.delivery import share_lost

    lost = share_lost(cuts.values())
    how = f"without {lost:.2%} of its norm" if lost else "exactly"
    terminal.show(
        Text.assemble(
            (str(output), "bold"),
            f" is the edit of {counted(len(edit.facts), 'fact')} for {edit.origin.model} as a LoRA adapter, {how}.",
        )
    )
    terminal.show(_cut_table(cuts))
    if cost is not None:
        terminal.show(cost.table())
    elif lost:
        terminal.note("What that costs in efficacy and specificity is measured with --facts.")
    if any(one.dense for one in cuts.values()):
        terminal.note(
            "The change is dense, and stands in the adapter as it is: --format safetensors is smaller."
        )
    terminal.result(
        {
            "output": str(output),
            "format": "peft",
            "norm_lost": lost,
            "weights": {path: _cut_json(one) for path, one in cuts.items()},
            "scores": None if cost is None else cost.to_json(),
        }
    )
    terminal.note(f'In Python: PeftModel.from_pretrained(model, "{output}")')


def _cut_table(cuts: dict[str, Cut]) -> Table:
    """What is left of each weight's change."""
    rows = table("Weight", ">Rank", ">of", ">Norm", ">Lost")
    for path, one in cuts.items():
        share = one.lost / one.norm if one.norm else 0.0
        rows.add_row(path, str(one.delta.rank), str(one.full_rank), f"{one.norm:.4g}", f"{share:.2%}")
    return rows


def _cut_json(one: Cut) -> dict[str, object]:
    return {"rank": one.delta.rank, "full_rank": one.full_rank, "norm": one.norm, "lost": one.lost}
