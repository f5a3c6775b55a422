"""Results: the table, the files, and what a damaged file says."""

import json
import math
from pathlib import Path

import pytest

from errata.errors import ErrataError, OutputExists
from errata.results.outcomes import Outcomes, Record, ResultsError
from errata.results.results import FILE, SCORES_FILE, Results, load_results
from errata.results.scores import LABELS, Score
from errata.results.written import Continuation
from errata.runtime import to_json
from result_rows import HIT, INF, LOSS, MISS, NAN, WIN, asked, record, results


class TestTable:
    def test_rows_are_what_was_measured_in_order(self) -> None:
        one = record(Outcomes(efficacy=(WIN,)), before=Outcomes(efficacy=(LOSS,)))
        rows = results(one).table()
        assert [row.name for row in rows] == [
            "efficacy_success",
            "efficacy_accuracy",
            "efficacy_token_accuracy",
        ]
        assert rows[0].label == "Efficacy, success"
        assert rows[0].before == Score(0.0, None, None, 1)
        assert rows[0].after == Score(1.0, None, None, 1)

    def test_without_a_before(self) -> None:
        rows = results(record(Outcomes(efficacy=(WIN,)))).table()
        assert all(row.before is None for row in rows)


def full() -> Results:
    """Every field filled, with numbers that are none and letters that are not ASCII."""
    said = Continuation("prompt", "Zürich", (5, 6), (5, 7), "Zü\u2028", "Zü\u2028 \ufffd ist \n schön.")
    before = Outcomes((asked(NAN, -INF, "?"),), (WIN, LOSS), (MISS,), (HIT,), (), said)
    after = Outcomes((asked(-0.1, -1e-17),), (WIN, LOSS), (HIT,), (HIT,), (MISS,), None)
    return results(
        record(after, before, "a-7"), record(after), Record(None, "s", "p", "n", None, None, None, after)
    )


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        saved = full().save(tmp_path / "some" / "run.jsonl")
        assert saved == tmp_path / "some" / "run.jsonl"
        again = load_results(saved)
        assert to_json(again.records) == to_json(full().records)
        assert again.records[1:] == full().records[1:]  # the first has a NaN, which differs from itself
        assert (again.model, again.revision, again.edit, again.settings) == (
            "tiny",
            "abc",
            {"method": "pmet", "layers": [1, 2]},
            {"dtype": "float64"},
        )

    def test_what_is_no_number_is_null_and_stays_no_number(self, tmp_path: Path) -> None:
        again = load_results(full().save(tmp_path / "run.jsonl"))
        row = json.loads((tmp_path / "run.jsonl").read_text(encoding="utf-8").split("\n")[1])
        wanted = row["before"]["efficacy"][0]["wanted"]
        assert wanted["log_probabilities"] == [None]
        assert row["before"]["efficacy"][0]["rival"]["log_probabilities"] == ["-inf"]
        before = again.records[0].before
        assert before is not None
        assert math.isnan(before.efficacy[0].wanted.log_probability)
        assert before.efficacy[0].rival is not None
        assert before.efficacy[0].rival.log_probability == -INF
        assert before.efficacy[0].success is False

    def test_broken_records_are_told(self) -> None:
        good, bad = record(Outcomes(efficacy=(WIN,))), record(Outcomes(unrelated=(asked(NAN, hits="?"),)))
        assert results(good, bad).broken == (bad,)

    def test_a_folder_has_the_scores_beside_the_records(self, tmp_path: Path) -> None:
        assert full().save(tmp_path / "run") == tmp_path / "run" / FILE
        scores = json.loads((tmp_path / "run" / SCORES_FILE).read_text(encoding="utf-8"))
        assert scores["computed_from"] == FILE
        assert scores["after"]["efficacy_success"] == {"mean": 0, "low": 0, "high": 0, "count": 3}
        assert set(scores["before"]) == set(LABELS)
        assert load_results(tmp_path / "run").scores() == full().scores()

    def test_without_a_before_no_scores_of_it_are_written(self, tmp_path: Path) -> None:
        results(record(Outcomes(efficacy=(WIN,)))).save(tmp_path / "run")
        assert "before" not in json.loads((tmp_path / "run" / SCORES_FILE).read_text(encoding="utf-8"))

    @pytest.mark.parametrize("name", ["run", "run.jsonl"])
    def test_nothing_is_overwritten(self, tmp_path: Path, name: str) -> None:
        full().save(tmp_path / name)
        with pytest.raises(OutputExists, match="exists already"):
            full().save(tmp_path / name)

    def test_nothing_half_written_is_left(self, tmp_path: Path) -> None:
        wrong = Results(full().records, "tiny", settings={"when": object()})
        with pytest.raises(TypeError):
            wrong.save(tmp_path / "run")
        with pytest.raises(TypeError):
            wrong.save(tmp_path / "run.jsonl")
        assert not list(tmp_path.iterdir())


class TestDamage:
    def lines(self, tmp_path: Path) -> list[str]:
        file = full().save(tmp_path / "good.jsonl")
        return file.read_text(encoding="utf-8").split("\n")[:-1]

    def message(self, tmp_path: Path, content: str | bytes) -> str:
        file = tmp_path / "run.jsonl"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ResultsError) as caught:
            load_results(file)
        assert isinstance(caught.value, ErrataError)
        assert isinstance(caught.value, ValueError)
        assert str(file) in str(caught.value)
        return str(caught.value)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ResultsError, match=r"no file of results .*nowhere"):
            load_results(tmp_path / "nowhere")
        with pytest.raises(ResultsError, match=r"no file of results .*results\.jsonl"):
            load_results(tmp_path)

    @pytest.mark.parametrize(
        "content", ["", "[]\n", '{"prompt": "x"}\n', '{"kind": "errata results"}\n', "1\n"]
    )
    def test_another_file(self, tmp_path: Path, content: str) -> None:
        assert "does not begin with the header" in self.message(tmp_path, content)

    def test_not_text(self, tmp_path: Path) -> None:
        assert "not text in UTF-8" in self.message(tmp_path, b"\xff\xfe\x00")

    def test_another_version(self, tmp_path: Path) -> None:
        header, *rest = self.lines(tmp_path)
        changed = "\n".join([header.replace('"schema": 2', '"schema": 3'), *rest, ""])
        message = self.message(tmp_path, changed)
        assert "schema version 3" in message
        assert "reads versions up to 2" in message

    def test_cut_off_inside_a_line(self, tmp_path: Path) -> None:
        message = self.message(tmp_path, "\n".join(self.lines(tmp_path))[:-20])
        assert "line 4 is not JSON" in message
        assert "cut off" in message

    def test_cut_off_between_lines(self, tmp_path: Path) -> None:
        message = self.message(tmp_path, "\n".join(self.lines(tmp_path)[:-1]) + "\n")
        assert "announces 3 records, and 2 are there" in message

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ('"subject": "s"', '"subject": 5', "subject is missing or not a text"),
            ('"case_id": null', '"case_id": true', "case_id must be a whole number or a text"),
            ('"tokens": [10]', '"tokens": ["a"]', "tokens must hold whole numbers"),
            ('"tokens": [10]', '"tokens": [10, 11]', "lists of one length"),
            ('"log_probabilities": [-1.0]', '"log_probabilities": ["x"]', "holds 'x'"),
            ('"generalization": [', '"generalisation": [', "generalization is missing or not a list"),
            ('"wanted": {', '"wanted": 3, "was": {', "wanted or rival must be an object"),
            ('"target_true": null', '"target_true": 1', "target_true is missing or not a text"),
        ],
    )
    def test_a_damaged_record(self, tmp_path: Path, old: str, new: str, told: str) -> None:
        lines = self.lines(tmp_path)
        assert old in lines[3]
        lines[3] = lines[3].replace(old, new)
        message = self.message(tmp_path, "\n".join(lines) + "\n")
        assert "line 4" in message
        assert told in message
