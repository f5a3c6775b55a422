"""MEMIT's value, where a family normalizes the FFN's output before it joins the residual stream."""

import pytest

from errata.errors import UnsupportedArchitecture
from errata.methods.registry import METHODS, settings_for
from families import SETTINGS, tiny_model


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
def test_the_value_stands_at_the_projection_unless_somebody_sets_it(method: str) -> None:
    own = {"layers": SETTINGS["layers"]}
    for family, place in (("llama", "block"), ("gemma3_text", "ffn")):
        settings, preset = settings_for(tiny_model(family), method, own)
        assert settings.values.optimize == (place,)
        assert "values.optimize" in preset.by_rule
        METHODS[method].check(tiny_model(family), settings)
    asked, _ = settings_for(tiny_model("gemma3_text"), method, {**own, "values.optimize": ["block"]})
    with pytest.raises(
        UnsupportedArchitecture, match=r"normalizes after the FFN.* Leave 'values.optimize' out"
    ):
        METHODS[method].check(tiny_model("gemma3_text"), asked)
