"""Calibration: the settings with which a method edits a model that nobody has edited before, found by trial edits.

`familiar` has facts that most models know, `pool` chooses those that this one does, `exam` measures an edit,
`objective` says what is better, `space` what is searched, `search` proposes the next trial, `running` makes the trials
within a budget and goes on from its journal, `reports` and `presets` write down what was found.
"""

from errata.calibrate.familiar import familiar_facts, plain_texts
from errata.calibrate.objective import BOUNDS, GOAL, Measures, score, shortfalls
from errata.calibrate.presets import install_preset
from errata.calibrate.reports import COLUMNS, check_extra, summary, verdict, write_report
from errata.calibrate.request import Calibration, CalibrationRequest, Trial
from errata.calibrate.running import calibrate

__all__ = [
    "BOUNDS",
    "COLUMNS",
    "GOAL",
    "Calibration",
    "CalibrationRequest",
    "Measures",
    "Trial",
    "calibrate",
    "check_extra",
    "familiar_facts",
    "install_preset",
    "plain_texts",
    "score",
    "shortfalls",
    "summary",
    "verdict",
    "write_report",
]
