"""Scores from outcomes: means, intervals, the harmonic mean, each by hand."""

import math

import pytest

from errata.results.outcomes import Outcomes, Record
from errata.results.scores import HARMONIC, LABELS, METRICS, TEXT_METRICS, Score, harmonic_score, mean_score
from errata.results.written import Continuation
from result_rows import HIT, LOSS, MISS, NAN, WIN, asked, record, results


def score(name: str, *records: Record, phase: str = "after") -> Score:
    found = results(*records).scores(phase)[name]  # type: ignore[arg-type]
    assert found is not None
    return found


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
