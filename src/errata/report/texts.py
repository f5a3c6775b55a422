"""A table of a recipe as Markdown and as LaTeX, and the cells that every form of it shows."""

import re
from collections.abc import Mapping

from errata.experiments import EMBEDDED, RULES, Line, Table, Value, number

NOT_MEASURED = "not measured"
NOT_PRINTED = "-"
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"$|$",
    "<": r"$<$",
    ">": r"$>$",
}


def ours(table: Table, line: Line) -> list[str]:
    """Our cells of a line: `97.4 ± 1.2`, or "not measured"."""
    return [_cell(line.values, column, NOT_MEASURED) for column in table.request.recipe.columns]


def printed(table: Table, line: Line) -> list[str]:
    """The paper's cells of a line; "-" where it prints none."""
    if line.printed is None:
        return [NOT_PRINTED for _ in table.request.recipe.columns]
    return [_cell(line.printed.values, column, NOT_PRINTED) for column in table.request.recipe.columns]


def _cell(values: Mapping[str, Value], column: str, missing: str) -> str:
    if column not in values:
        return missing
    mean, half = values[column]
    text = number(column, mean)
    return text if half is None else f"{text} ± {number(column, half)}"


def printed_name(table: Table, line: Line) -> str:
    """Which line of the paper it is: `paper, k = 4`."""
    assert line.printed is not None
    step = f", k = {line.printed.step}" if line.printed.step and line.step is not None else ""
    edits = f", {line.printed.edits:,} edits" if len(_printed_edits(table)) > 1 else ""
    return f"paper{step}{edits}"


def _printed_edits(table: Table) -> list[int]:
    """The numbers of edits of the paper's lines that stand beside ours."""
    return sorted({line.printed.edits for line in table.lines if line.printed is not None})


def footnote(table: Table) -> str:
    """What the letters behind lines say; empty where there are none."""
    if not any(line.mark for line in table.lines):
        return ""
    rules = "; ".join(f"{letter}: {words}" for letter, words in RULES.values())
    return f"Letters are rules to stop the iterations, at the one that each rule keeps. {rules}."


def heading(table: Table) -> str:
    """What is compared with what, in a sentence."""
    request = table.request
    edits = _listed([f"{count:,}" for count in request.sizes.edits])
    trials = f", {request.sizes.trials} trials" if request.sizes.trials > 1 else ""
    said = f"{request.model}: {edits} edits{trials}, seed {request.seed}, facts of {', '.join(request.data)}."
    if request.model == EMBEDDED and "me_ppl_50" in request.recipe.columns:
        said += " ME-PPL is over 50 held-out texts of its own corpus."
    if not table.printed_model:
        return f"{said} The paper prints no numbers for this figure."
    counts = _printed_edits(table)
    edits = f" ({counts[0]:,} edits)" if len(counts) == 1 else ""
    if table.same_model:
        return f"{said} Beside it the paper's numbers for {table.printed_model}{edits}."
    return (
        f"{said} Beside it the paper's numbers for {table.printed_model}{edits}, another model with other facts: "
        "compare which row is ahead of which, not the numbers."
    )


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def label_of(table: Table, line: Line) -> str:
    """The name of a line, with what tells it from others of its row."""
    request, more = table.request, list[str]()
    if len(request.sizes.edits) > 1:
        more.append(f"{line.edits:,} {'edit' if line.edits == 1 else 'edits'}")
    if len(request.data) > 1:
        more.append(line.data)
    name = f"{line.name} ({'; '.join(more)})" if more else line.name
    return f"{name} [{line.mark}]" if line.mark else name


def markdown(table: Table) -> str:
    """The table in Markdown: under each line of ours the paper's."""
    recipe = table.request.recipe
    head = ["", *(label for _, label in table.columns), "facts"]
    rows = [head, ["---", *("---:" for _ in head[1:])]]
    for line in table.lines:
        if line.failed:
            rows.append([f"**{label_of(table, line)}**", f"failed: {line.failed}", *[""] * (len(head) - 2)])
            continue
        rows.append([f"**{label_of(table, line)}**", *ours(table, line), f"{line.facts:,}"])
        if line.printed is not None:
            rows.append([f"*{printed_name(table, line)}*", *printed(table, line), ""])
    body = (
        "\n".join(f"| {' | '.join(_in_markdown(cell) for cell in row)} |" for row in rows)
        if table.lines
        else ""
    )
    notes = "\n\n".join(text for text in (heading(table), recipe.note, footnote(table)) if text)
    return f"# {recipe.title}\n\n{recipe.source}. {notes}\n\n{body}\n".replace("\n\n\n", "\n\n")


def _in_markdown(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def latex(table: Table) -> str:
    """The table in LaTeX (package booktabs): under each line of ours the paper's."""
    recipe = table.request.recipe
    heads = ["", *(label for _, label in table.columns)]
    caption = f"{recipe.title} ({recipe.source}). {heading(table)} {footnote(table)}".strip()
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        f"\\caption{{{_in_latex(caption)}}}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        "\\toprule",
        _latex_row(heads),
        "\\midrule",
    ]
    for line in table.lines:
        if line.failed:
            span = max(1, len(table.columns))
            lines.append(f"{_in_latex(label_of(table, line))} & \\multicolumn{{{span}}}{{l}}{{failed}} \\\\")
            continue
        lines.append(_latex_row([label_of(table, line), *ours(table, line)]))
        if line.printed is not None:
            lines.append(_latex_row([f"  {printed_name(table, line)}", *printed(table, line)]))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def _latex_row(cells: list[str]) -> str:
    return " & ".join(_in_latex(cell) for cell in cells) + " \\\\"


def _in_latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text).replace("±", "$\\pm$")
