"""The recipe of Almanac's training."""

import pytest

from errata.almanac.recipe import Recipe


def test_the_rate_rises_and_falls() -> None:
    recipe = Recipe()
    rates = [recipe.rate(step) for step in range(recipe.steps)]
    assert max(rates) == pytest.approx(recipe.peak_rate)
    assert rates[0] < 1e-5
    assert rates[-1] < 1e-8
    assert (recipe.share(0), recipe.share(recipe.steps - 1)) == (0.9, 0.6)
