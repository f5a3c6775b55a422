"""Scores by hand, and the file that keeps what they are computed from."""

import json
import math
from pathlib import Path

import pytest

from errata.errors import ErrataError, OutputExists
from errata.results.outcomes import NO_TOKEN, Answer, Outcomes, Question, Record, ResultsError
from errata.results.results import FILE, SCORES_FILE, Results, load_results
from errata.results.scores import HARMONIC, LABELS, METRICS, TEXT_METRICS, Score, harmonic_score, mean_score
from errata.results.written import Continuation
from errata.runtime import to_json

NAN, INF = math.nan, math.inf


def answer(*log_probabilities: float, hits: str | None = None) -> Answer:
    """Tokens 10, 11, ...; `hits` has a `+` where the token is the likeliest one (by default everywhere)."""
    marks = hits or "+" * len(log_probabilities)
    tokens = tuple(range(10, 10 + len(log_probabilities)))
    predicted = tuple(
        token if mark == "+" else NO_TOKEN if mark == "?" else 99
        for token, mark in zip(tokens, marks, strict=True)
    )
    return Answer("text", tokens, tuple(map(float, log_probabilities)), predicted, "said")


def asked(wanted: float, rival: float | None = None, hits: str | None = None) -> Question:
    return Question("prompt", answer(wanted, hits=hits), None if rival is None else answer(rival))


WIN, LOSS = asked(-1, -2), asked(-2, -1)
HIT, MISS = asked(-1, hits="+"), asked(-1, hits="-")


def record(after: Outcomes, before: Outcomes | None = None, case_id: int | str | None = 0) -> Record:
    return Record(case_id, "Jonas Müller", "Jonas Müller lives in", "Zürich", "Bern", "P1", before, after)


def results(*records: Record) -> Results:
    return Results(tuple(records), "tiny", "abc", {"method": "pmet", "layers": [1, 2]}, {"dtype": "float64"})


def score(name: str, *records: Record, phase: str = "after") -> Score:
    found = results(*records).scores(phase)[name]  # type: ignore[arg-type]
    assert found is not None
    return found


class TestOneQuestion:
    def test_p_of_several_tokens_is_their_mean_log_probability(self) -> None:
        # Sums would decide the other way: -1 - 3 = -4 is less than -2.5.
        question = Question("prompt", answer(-1, -3), answer(-2.5))
        assert question.wanted.log_probability == -2
        assert question.success is True

    def test_as_likely_is_not_likelier(self) -> None:
        assert asked(-1, -1).success is False

    def test_without_a_rival_there_is_no_success_to_measure(self) -> None:
        assert asked(-1).success is None

    @pytest.mark.parametrize(
        ("wanted", "rival"), [(NAN, -1), (-1, NAN), (NAN, NAN), (-INF, -INF), (-INF, -1)]
    )
    def test_what_is_not_a_number_never_succeeds(self, wanted: float, rival: float) -> None:
        assert asked(wanted, rival).success is False

    def test_every_token_must_be_the_likeliest(self) -> None:
        assert answer(-1, -1, hits="++").correct
        assert not answer(-1, -1, hits="+-").correct
        assert answer(-1, -1, -1, hits="+-+").hits == (True, False, True)

    def test_no_token_is_never_a_hit(self) -> None:
        broken = answer(NAN, hits="?")
        assert not broken.correct
        assert broken.broken
        assert not answer(-1).broken
        assert Question("prompt", answer(-1), broken).broken

    def test_an_answer_has_a_number_for_every_token(self) -> None:
        with pytest.raises(ResultsError, match="lists of one length"):
            Answer("text", (1, 2), (-1.0,), (1, 2), "said")
        with pytest.raises(ResultsError, match="not empty"):
            Answer("text", (), (), (), "said")


class TestMeans:
    def test_per_record_first_then_over_records(self) -> None:
        half = record(Outcomes(generalization=(WIN, LOSS)))
        whole = record(Outcomes(generalization=(WIN, WIN, WIN, WIN)))
        assert score("generalization_success", half, whole).mean == 0.75  # over questions it would be 5/6

    def test_records_that_cannot_tell_do_not_count(self) -> None:
        found = score("generalization_success", record(Outcomes()), record(Outcomes(generalization=(WIN,))))
        assert (found.mean, found.count) == (1, 1)

    def test_success_of_each_group_is_its_own(self) -> None:
        one = record(Outcomes(efficacy=(WIN,), generalization=(LOSS,), specificity=(WIN, LOSS, LOSS, LOSS)))
        assert score("efficacy_success", one).mean == 1
        assert score("generalization_success", one).mean == 0
        assert score("specificity_success", one).mean == 0.25

    def test_accuracy_of_each_group_is_its_own(self) -> None:
        groups = {
            "efficacy": (HIT,),
            "generalization": (HIT, MISS),
            "specificity": (MISS,),
            "same_subject": (HIT, HIT, HIT, MISS),
            "unrelated": (HIT, MISS, MISS, MISS),
        }
        one = record(Outcomes(**groups))
        means = {name: score(f"{name}_accuracy", one).mean for name in groups}
        assert means == {
            "efficacy": 1,
            "generalization": 0.5,
            "specificity": 0,
            "same_subject": 0.75,
            "unrelated": 0.25,
        }

    def test_without_target_true_success_is_not_measured_and_not_zero(self) -> None:
        scores = results(
            record(Outcomes(efficacy=(HIT,), generalization=(HIT,), specificity=(WIN,)))
        ).scores()
        assert scores["efficacy_success"] is None
        assert scores["score_success"] is None
        assert scores["efficacy_accuracy"] == Score(1.0, None, None, 1)
        assert scores["score_accuracy"] == Score(1.0, None, None, 1)

    def test_each_phase_has_its_own_scores(self) -> None:
        one = record(Outcomes(efficacy=(WIN,)), before=Outcomes(efficacy=(LOSS,)))
        assert score("efficacy_success", one).mean == 1
        assert score("efficacy_success", one, phase="before").mean == 0

    def test_a_phase_that_was_not_run_has_no_scores(self) -> None:
        assert set(results(record(Outcomes(efficacy=(WIN,)))).scores("before").values()) == {None}

    def test_a_phase_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises((ValueError, TypeError), match="later"):
            score("efficacy_success", record(Outcomes()), phase="later")


class TestUnchanged:
    def test_the_same_likeliest_tokens_count_even_where_they_are_wrong(self) -> None:
        before = Outcomes(specificity=(asked(-1, hits="-"), asked(-1, hits="+")))
        after = Outcomes(specificity=(asked(-9, hits="-"), asked(-1, hits="-")))
        assert score("specificity_unchanged", record(after, before)).mean == 0.5

    def test_it_needs_the_run_without_the_edit(self) -> None:
        group = Outcomes(specificity=(HIT,))
        assert results(record(group)).scores()["specificity_unchanged"] is None
        assert results(record(group, group)).scores("before")["specificity_unchanged"] is None

    def test_two_outputs_that_are_no_numbers_are_not_the_same_answer(self) -> None:
        broken = Outcomes(specificity=(asked(NAN, hits="?"),))
        assert score("specificity_unchanged", record(broken, broken)).mean == 0


class TestGeneration:
    def continuation(self, tokens: tuple[int, ...], answer: str) -> Continuation:
        return Continuation("prompt", "New York", (5, 6), tokens, answer, "New York, as we know.")

    def test_the_same_tokens_or_the_same_text_are_exact(self) -> None:
        assert self.continuation((5, 6), "New York").exact
        assert self.continuation((7, 8), "New York").exact
        assert self.continuation((5, 6), "new york").exact  # a tokenizer that does not keep capitals

    def test_anything_else_is_not(self) -> None:
        assert not self.continuation((5,), "New").exact
        assert not self.continuation((5, 7), "New Jersey").exact
        assert not self.continuation((), "").exact

    def test_accuracy_is_over_the_records_that_were_let_write(self) -> None:
        hit = Outcomes(continuation=self.continuation((5, 6), "New York"))
        miss = Outcomes(continuation=self.continuation((5, 7), "New Jersey"))
        found = score("generation_accuracy", record(hit), record(miss), record(Outcomes()))
        assert (found.mean, found.count) == (0.5, 2)


class TestIntervals:
    def test_by_hand(self) -> None:
        # m = 1/2, s^2 = 4 * (1/4) / 3 = 1/3, s / sqrt(4) = 0.288675, times 1.96 = 0.565803
        found = mean_score([1.0, 0.0, 1.0, 0.0])
        assert found is not None
        assert found.mean == 0.5
        assert found.count == 4
        assert found.margin == pytest.approx(0.565803, abs=1e-6)
        assert found.low == pytest.approx(0.5 - 0.565803, abs=1e-6)

    def test_one_record_has_no_interval(self) -> None:
        assert mean_score([0.3]) == Score(0.3, None, None, 1)
        assert Score(0.3, None, None, 1).margin is None

    def test_no_record_has_no_score(self) -> None:
        assert mean_score([None, None]) is None

    def test_what_is_not_there_is_left_out(self) -> None:
        assert mean_score([1.0, None, 0.0]) == mean_score([1.0, 0.0])

    def test_no_spread_no_width(self) -> None:
        assert mean_score([1.0, 1.0, 1.0]) == Score(1.0, 1.0, 1.0, 3)


class TestHarmonicMean:
    def test_by_hand(self) -> None:
        found = harmonic_score([[1.0], [0.5], [0.25]])  # 3 / (1 + 2 + 4)
        assert found == Score(3 / 7, None, None, 1)

    def test_one_zero_makes_it_zero(self) -> None:
        assert harmonic_score([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]) == Score(0.0, None, None, 2)

    def test_one_that_is_not_measured_makes_it_not_measured(self) -> None:
        assert harmonic_score([[1.0], [1.0], [None]]) is None

    def test_of_three_equal_columns_it_is_the_mean_with_its_interval(self) -> None:
        column = [1.0, 0.5, 0.25, 0.75]
        found, mean = harmonic_score([column] * 3), mean_score(column)
        assert found is not None
        assert mean is not None
        assert found.mean == pytest.approx(mean.mean)
        assert found.margin == pytest.approx(mean.margin)

    def test_interval_by_hand(self) -> None:
        # Two of the means are 1 and do not vary; the third is 1/2, of 0 and 1. H = 3 / 4, slope of the third
        # g = H^2 / (3 * 1/4) = 3/4; z = -3/8 and 3/8, s^2 = 9/32, s / sqrt 2 = 3/8, times 1.96 = 0.735
        found = harmonic_score([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
        assert found is not None
        assert found.mean == pytest.approx(0.75)
        assert found.margin == pytest.approx(0.735)

    def test_a_column_with_fewer_records_varies_more(self) -> None:
        # The third column knows two of four records: each counts twice, which is its interval over two records
        # but for the N - 1 of all four. z = 2 * (-3/8), 2 * 3/8, 0, 0; s^2 = 2 * (9/16) / 3 = 3/8; 1.96 sqrt(3/32)
        found = harmonic_score([[1.0] * 4, [1.0] * 4, [0.0, 1.0, None, None]])
        assert found is not None
        assert found.count == 4
        assert found.margin == pytest.approx(1.96 * math.sqrt(3 / 32))

    def test_the_scores_use_it(self) -> None:
        one = record(
            Outcomes(efficacy=(WIN,), generalization=(WIN, LOSS), specificity=(WIN, LOSS, LOSS, LOSS))
        )
        assert score("score_success", one).mean == pytest.approx(3 / 7)


def test_every_score_has_a_label() -> None:
    assert set(LABELS) == {*METRICS, *TEXT_METRICS, *HARMONIC}


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
