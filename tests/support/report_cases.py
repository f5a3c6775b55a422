"""A small experiment that was run, for the tests of reports."""

import json
import re
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from errata.experiments.running import run_cells
from errata.experiments.tables import Table, make_table
from errata.report.folder import write_report
from experiment_world import request
from families import FACTS
from tiny import fresh_model


@cache
def reported() -> tuple[Table, Path]:
    """The small recipe's table and its output folder, made once; with the hostile fact among the facts."""
    folder = Path(mkdtemp(prefix="errata-report-"))
    asked = request(folder, paper_setting={"edits": [len(FACTS) + 1], "models": ["other/model"]})
    run_cells(fresh_model(), asked, folder)
    table = make_table(asked, folder)
    write_report(table, folder)
    return table, folder


def data_of(page: str) -> list[dict[str, object]]:
    """The facts in a page, as its program reads them."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    facts: list[dict[str, object]] = json.loads(found[1])
    return facts
