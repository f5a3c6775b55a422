"""The page where people edit a model and see what moved: `errata web`.

`session.py` is all of it without a page: the line before the model, each person's edits, what the model says. `page.py`
shows it with Gradio, which only that file and `serving.py` import.
"""

from errata.web.session import Session
from errata.web.stored import Stored, open_run

__all__ = ["Session", "Stored", "open_run"]
