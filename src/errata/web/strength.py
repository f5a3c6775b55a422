"""How strongly a method writes: one setting of its own, turned up or down, and said in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from errata.methods import METHODS, settings_for
from errata.models import EditableModel
from errata.settings import flatten

Strength = Literal["gentle", "normal", "strong"]
STRENGTHS: tuple[Strength, ...] = ("gentle", "normal", "strong")


@dataclass(frozen=True)
class Knob:
    """A setting that makes a method write more strongly."""

    setting: str
    factor: float
    """By which it is multiplied for "strong", and divided for "gentle"."""
    meaning: str
    share: bool = False
    """Whether it is a share, whose odds share / (1 - share) are multiplied: lambda is then divided by the same."""

    def turned(self, usual: float, strength: Strength) -> float:
        """The value for a strength."""
        factor = self.factor if strength == "strong" else 1 / self.factor
        odds = factor * usual / (1 - usual) if self.share else 0.0
        return round(odds / (1 + odds), 6) if self.share else usual * factor


KNOBS = (
    Knob(
        "solve.covariance_weight",
        0.25,
        "how much all other text counts against the new facts: the less, the stronger",
    ),
    Knob(
        "solve.realised_share",
        4.0,
        "how much of its change one write gives a fact: the more, the stronger",
        share=True,
    ),
    Knob("solve.ridge", 0.25, "how much the size of the change counts against it: the less, the stronger"),
    Knob("values.clamp", 2.0, "how far the model's inner value of a fact may move: the more, the stronger"),
    Knob("learning_rate", 2.0, "how large each step of the training is: the larger, the stronger"),
)
"""The first one that a method has is its knob."""


@dataclass(frozen=True)
class Choice:
    """A method with a strength, settled for a model."""

    method: str
    strength: Strength
    settings: dict[str, object]
    """Over the preset."""
    words: str
    """What it sets, in a sentence."""


def choice(model: EditableModel, method: str, strength: Strength) -> Choice:
    """What a strength means for a method on this model.

    Raises:
        UnknownSetting, SettingsError: no such method, or it has no preset that fits the model.
    """
    values, preset = settings_for(model, method, {})
    knob, setting = _knob(flatten(values))
    layers = METHODS[method].layers(values)
    base = f"It writes into layers {', '.join(map(str, layers))} (preset {preset.name})."
    if knob is None:
        return Choice(
            method, strength, {}, f"{base} It has no setting for the strength: all three do the same."
        )
    usual = float(flatten(values)[setting])
    if strength == "normal":
        words = f"{base} Strength normal leaves {setting} at {usual:g}. That is {knob.meaning}."
        return Choice(method, strength, {}, words)
    value = knob.turned(usual, strength)
    words = f"{base} Strength {strength} sets {setting} to {value:g} instead of {usual:g}. That is {knob.meaning}."
    return Choice(method, strength, {setting: value}, words)


def _knob(settings: Mapping[str, object]) -> tuple[Knob | None, str]:
    """The first knob that a method has, and the path of its setting: at the first site where there are two."""
    for knob in KNOBS:
        for name, value in settings.items():
            if value is not None and f".{name}".endswith(f".{knob.setting}"):
                return knob, name
    return None, ""
