"""The three strengths of the page."""

import pytest

from errata.methods.registry import METHODS
from errata.web.strength import STRENGTHS, choice
from families import tiny_model


@pytest.mark.parametrize("method", METHODS)
def test_a_strength_says_what_it_sets_and_sets_it(method: str) -> None:
    model = tiny_model("gpt2")
    gentle, normal, strong = (choice(model, method, strength) for strength in STRENGTHS)
    assert normal.settings == {}
    if not strong.settings:
        assert "no setting for the strength" in strong.words
        return
    (name,) = strong.settings
    assert list(gentle.settings) == [name]
    for one in (gentle, strong):
        assert f"sets {name} to {one.settings[name]:g}" in one.words
    assert gentle.settings[name] != strong.settings[name]
    assert f"leaves {name}" in normal.words
