"""A write of a strategy is taken back bit for bit."""

from pathlib import Path

import pytest

from errata.strategies.writing import Writer
from families import tiny_model
from strategy_cases import assert_untouched, collect_moments, stepped, weights_of


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect_moments(tmp_path_factory.mktemp("moments"))


def test_a_write_is_taken_back_bit_for_bit(moments: Path) -> None:
    model = tiny_model("gpt2", "float32")
    untouched, writer = weights_of(model), Writer(model)
    deltas = stepped(moments, dtype="float32").deltas
    with writer.put_back():
        writer.write(deltas)
        writer.write(deltas)
        good = weights_of(model)
        writer.write(deltas)
        with model.ledger.unedited(writer.since):
            assert_untouched(model, untouched)
        writer.take_back()
        assert_untouched(model, good)
        writer.take_back(2)
        assert_untouched(model, untouched)
    assert not writer.total()
