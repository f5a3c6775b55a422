"""Second moments of the tiny models, measured once for each: the fixture `moments` in `conftest.py`."""

import random
from collections.abc import Callable
from pathlib import Path

from errata.models.model import EditableModel
from families import SENTENCES

TEXTS = [" ".join(random.Random(seed).sample(SENTENCES, 3)) for seed in range(24)]
Moments = Callable[[EditableModel], Path]
