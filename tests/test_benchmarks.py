"""The benchmarks run, and what they compare does the same work. How long anything takes is no matter here."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PROGRAM = BENCHMARKS / "run.py"
Ran = Callable[..., dict[str, Any]]
ONE_BY_ONE = f"""
import json, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import run
for line in sys.stdin:
    assert run.main(json.loads(line)) == 0, line
    sys.stdout.flush()
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Runs the program with some arguments, all in one process: torch and transformers are loaded once."""
    remarks = tmp_path_factory.mktemp("benchmarks") / "stderr"
    with (
        remarks.open("w", encoding="utf-8") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", ONE_BY_ONE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def run(*arguments: str) -> dict[str, Any]:
            words = [*arguments, "--tiny", "--json", "--steps", "3", "--rounds", "1"]
            asked.write(json.dumps(words) + "\n")
            asked.flush()
            answer = answers.readline()
            assert answer, remarks.read_text(encoding="utf-8")
            return json.loads(answer)

        yield run
        asked.close()


@pytest.mark.parametrize("stage", ["optimization", "spread", "covariance", "evaluation", "edit"])
def test_both_programs_give_the_same_and_the_ratio_and_the_floor_are_told(stage: str, ran: Ran) -> None:
    row = ran(stage)
    assert row["agreement"]["agree"], row["agreement"]
    assert row["ratio"].keys() == {"cpu", "wall"}
    assert row["shipped"].keys() == row["published"].keys() == {"cpu", "wall"}
    assert row["floor"]["seconds"] > 0
    assert row["floor"]["fraction"] == pytest.approx(
        row["floor"]["seconds"] / row["shipped"]["cpu"], rel=1e-2
    )


@pytest.mark.parametrize("stage", ["optimization", "covariance", "evaluation"])
def test_every_lever_is_measured_alone(stage: str, ran: Ran) -> None:
    levers = ran(stage, "--levers")["levers"]
    assert len(levers) >= 3
    assert all(lever["cpu"] > 0 for lever in levers.values())


@pytest.mark.parametrize("stage", ["optimization", "spread", "covariance", "evaluation", "edit"])
def test_a_large_shape_in_bfloat16_is_measured_alone_for_several_numbers_of_facts(
    stage: str, ran: Ran
) -> None:
    row = ran(stage, "--shape", "gpt-j", "--dtype", "bfloat16", "--shipped-only", "--facts", "1", "3")
    assert [run["facts"] for run in row["runs"]] == [1, 3]
    assert row["projection"]["facts"] == 10_000
    assert all(run["peak_memory"] > 0 for run in row["runs"])


def test_missing_data_are_told_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "spread", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "--data-dir" in done.stderr
    assert "Traceback" not in done.stderr
