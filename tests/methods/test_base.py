"""What the sites of methods have in common."""

import re

import pytest

from errata.errors import SettingsError
from errata.methods.base import SiteSettings
from errata.settings.method_presets import load_presets
from errata.settings.schema import build


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "Setting 'layers' must be one or more different blocks in ascending order: ()"),
        ((2, 1), "ascending order: (2, 1)"),
        ((1, 1), "different blocks in ascending order"),
    ],
)
def test_layers_that_no_run_can_use(layers: tuple[int, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        build(SiteSettings, load_presets("pmet").defaults, {"layers": layers})
