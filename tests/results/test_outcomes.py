"""One question: when an answer succeeds, and when it is right."""

import pytest

from errata.results.outcomes import Answer, Question, ResultsError
from result_rows import INF, NAN, answer, asked


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
