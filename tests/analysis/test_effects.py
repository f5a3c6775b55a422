"""Effects of restoring: averages with intervals, the critical layers, files."""

import json

import pytest

from errata.analysis.effects import GROUPS, Effects, average, critical_layers, effects_from_json
from errata.errors import ResultsError
from errata.runtime import to_json


def traced(ffn: list[list[float]], subject: tuple[int, int], noised: float = 0.1) -> Effects:
    rows = tuple(tuple(row) for row in ffn)
    tokens = tuple("abcdefgh"[: len(ffn[0])])
    restored = {"state": rows, "ffn": rows, "attention": rows}
    return Effects("s", "q", "a", "a", tokens, subject, 0.9, noised, restored)


def test_a_token_belongs_to_its_groups() -> None:
    of = {name: list(chosen((1, 4), 7)) for name, chosen in GROUPS.items()}
    assert list(of.values()) == [[1], [2], [3], [4], [5], [6]]
    alone = {name: list(chosen((0, 1), 1)) for name, chosen in GROUPS.items()}
    assert list(alone.values()) == [[0], [], [0], [], [], [0]]


def test_the_average_indirect_effect_is_over_facts_with_its_interval() -> None:
    facts = [traced([[0.1, 0.3, 0.5]], (1, 2)), traced([[0.1, 0.7, 0.9]], (1, 2), noised=0.3)]
    (score,) = average(facts, "ffn", "last subject token")
    assert score is not None
    assert score.mean == pytest.approx(0.3)
    assert score.margin == pytest.approx(1.96 * 0.1)
    assert average(facts, "ffn", "middle subject tokens") == [None]
    assert facts[0].total_effect == pytest.approx(0.8)


def test_the_critical_layers_end_where_the_effect_of_a_state_is_largest() -> None:
    heights = [0.1, 0.1, 0.1, 0.5, 0.6, 0.9, 0.9, 0.3, 0.1, 0.1, 0.1, 0.1]
    assert critical_layers([traced([[0.1, height] for height in heights], (1, 2))]) == ((1, 2, 3, 4, 5), 3)
    early = [traced([[0.1, height] for height in reversed(heights[5:])], (1, 2))]
    assert critical_layers(early)[0] == (3, 4, 5)
    assert critical_layers([traced([[0.1, 0.9], [0.1, 0.2], [0.1, 0.2]], (1, 2))]) == ((0,), 0)


def test_effects_are_written_and_read() -> None:
    one = traced([[0.1, 0.2]], (0, 1))
    assert effects_from_json(json.loads(json.dumps(to_json(one)))) == one
    with pytest.raises(ResultsError, match="no traced fact"):
        effects_from_json({"subject": "s"})
