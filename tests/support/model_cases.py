"""Texts and tokens for the tests of models."""

import pytest

from families import FAMILIES

every_family = pytest.mark.parametrize("name", FAMILIES)
