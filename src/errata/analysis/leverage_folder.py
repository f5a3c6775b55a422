"""What a leverage profile leaves on disk: its numbers and a figure."""

from pathlib import Path

from errata.analysis.leverage import LeverageProfile
from errata.runtime import to_json, write_json

NUMBERS, FIGURE = "leverage.json", "leverage.svg"


def write_leverage(profile: LeverageProfile, folder: Path) -> None:
    """Write the numbers and a figure into a folder.

    Raises:
        MissingExtra: figures need matplotlib.
    """
    from errata.analysis.drawing import draw_leverage

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NUMBERS, to_json(profile))
    draw_leverage(profile, folder / FIGURE)
