"""What is searched: the knobs of a method, found by the names of its settings, in stages from cheap to expensive.

Values v* depend on where they stand and how they are optimized, not on how they are written. They are kept, so a
trial that changes only how strongly they are written, or into how many layers below, costs a solve and an exam.

    strength   how strongly values are written, in the layers that the method comes with
    layers     where values stand
    values     how they are optimized
    write      strength once more, and into how many layers below
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast, get_args

Stage = Literal["strength", "layers", "values", "write"]
STAGES: tuple[Stage, ...] = get_args(Stage)
TRIALS: Mapping[Stage, int] = {"strength": 6, "layers": 9, "values": 9, "write": 9}
"""How many trials each stage has, where nothing else limits them."""
TIME: Mapping[Stage, float] = {"strength": 0.25, "layers": 0.55, "values": 0.85, "write": 1.0}
"""By which part of the search's time each stage ends."""

Value = str | int | float
Settings = Mapping[str, object]

SHARE, WEIGHT, RIDGE = "solve.realised_share", "solve.covariance_weight", "solve.ridge"
SHARES = (0.5, 0.7, 0.85, 0.95, 0.3)
"""Shares of a residual that are tried first."""
DIVISORS = (10.0, 1 / 3, 100.0, 3.0, 1 / 10)
"""Weights of other text that are tried first, as parts of the one that the method comes with."""
NEAR, CLOSE = 10.0, 0.25
"""After their own stage, weights stay within this factor of the best one, and shares within this distance."""
DEPTHS = {
    "several": (0.2, 0.35, 0.5, 0.1, 0.65),
    "one": (0.2, 0.35, 0.5, 0.1),
    "read_out": (0.85, 0.75, 0.95),
}
"""At which depths values are tried, by the rule that chooses a method's layers."""
WIDTHS = (1, 2, 3, 5, 8)
FACTORS: Mapping[str, tuple[float, ...]] = {
    "values.learning_rate_scale": (0.4, 2.0),
    "values.clamp": (2.0, 0.5, 4.0),
    "values.learning_rate": (0.4, 2.0),
    "values.preserve_weight": (3.0, 0.3),
}
"""What settings of the values are multiplied by, largest effect first."""


@dataclass(frozen=True)
class Knob:
    """A setting that is searched: one of `choices`, or a number from `low` to `high`."""

    name: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False


@dataclass(frozen=True)
class StageSpace:
    """The knobs of a stage, and the points that are tried before any others."""

    knobs: tuple[Knob, ...]
    planned: tuple[Mapping[str, Value], ...]


@dataclass(frozen=True)
class Space:
    """The whole space of a method on a model: what it comes with, and which settings the user has fixed."""

    base: Settings
    """All settings of the method as it comes, by their paths."""
    blocks: int
    """Of the model."""
    layer_rules: Mapping[str, str]
    """Which rule chooses layers, by the path of the setting."""
    fixed: frozenset[str] = field(default_factory=frozenset[str])

    def stage(self, stage: Stage, anchor: Settings) -> StageSpace:
        """The space of a stage around `anchor`: all settings of the best trial of the stages before."""
        strength, planned = self._strength()
        if stage == "strength":
            return StageSpace(strength, planned)
        strength = tuple(_narrowed(knob, float(str(anchor[knob.name]))) for knob in strength)
        own = {"layers": self._layers, "values": self._values, "write": self._widths}[stage](anchor)
        points = [
            {knob.name: choice}
            for knob in own
            for choice in knob.choices
            if choice != in_words(anchor[knob.name])
        ]
        return StageSpace((*strength, *own), tuple(_alternating(points)))

    def layer_points(self) -> list[Settings]:
        """All settings as the method comes, and with each other choice of layers that the search may try."""
        knobs = self._layers(self.base)
        widest = [
            Knob(knob.name, tuple(_window(number, min(number + 1, max(WIDTHS))) for number in _lasts(knob)))
            for knob in knobs
        ]
        return [self.base, *({**self.base, knob.name: choice} for knob in widest for choice in knob.choices)]

    def _named(self, ending: str, settings: Settings | None = None) -> list[str]:
        """The settings that end so and may be searched."""
        return [
            name
            for name, value in (settings or self.base).items()
            if f".{name}".endswith(f".{ending}") and name not in self.fixed and value is not None
        ]

    def _strength(self) -> tuple[tuple[Knob, ...], tuple[Mapping[str, Value], ...]]:
        """How strongly values are written: a share of the residual where the method has one, else a weight."""
        shares, weights = self._named(SHARE), [*self._named(WEIGHT), *self._named(RIDGE)]
        values = {name: value for name in weights if (value := float(str(self.base[name]))) > 0}
        knobs = [Knob(name, low=0.1, high=0.99) for name in shares]
        knobs += [
            Knob(name, low=_rounded(value / 1000), high=_rounded(30 * value), log=True)
            for name, value in values.items()
        ]
        points = [
            {**dict.fromkeys(shares, share), **{name: _rounded(values[name] / part) for name in values}}
            for share, part in zip(SHARES, DIVISORS, strict=True)
        ]
        return tuple(knobs), tuple(points if knobs else ())

    def _layers(self, anchor: Settings) -> tuple[Knob, ...]:
        """Windows as wide as the anchor's, at other depths."""
        knobs: list[Knob] = []
        for name in self._named("layers", anchor):
            own, depths = _numbers(anchor[name]), DEPTHS.get(self.layer_rules.get(name, ""), ())
            lasts = [round(depth * (self.blocks - 1)) for depth in depths]
            windows = [_window(last, len(own)) for last in lasts if last >= len(own) - 1 and last != own[-1]]
            if windows:
                knobs.append(Knob(name, tuple(dict.fromkeys((_window(own[-1], len(own)), *windows)))))
        return tuple(knobs)

    def _widths(self, anchor: Settings) -> tuple[Knob, ...]:
        """Windows that end where the anchor's do: the values are the same."""
        knobs: list[Knob] = []
        for name in self._named("layers", anchor):
            own = _numbers(anchor[name])
            if self.layer_rules.get(name) in ("several", "read_out"):
                widths = sorted({len(own), *(width for width in WIDTHS if width <= own[-1] + 1)})
                knobs.append(Knob(name, tuple(_window(own[-1], width) for width in widths)))
        return tuple(knobs)

    def _values(self, anchor: Settings) -> tuple[Knob, ...]:
        knobs: list[Knob] = []
        for ending, factors in FACTORS.items():
            for name in self._named(ending, anchor):
                if ending != "values.preserve_weight" or self._preserves(name, anchor):
                    own = float(str(anchor[name]))
                    knobs.append(Knob(name, tuple(_rounded(own * factor) for factor in (1.0, *factors))))
        return tuple(knobs)

    def _preserves(self, name: str, anchor: Settings) -> bool:
        """Whether a weight of preserved statements has any effect."""
        return anchor.get(f"{name.removesuffix('preserve_weight')}preserve") == "subject"


def _narrowed(knob: Knob, around: float) -> Knob:
    """The knob's range around the best strength so far: far from it a trial of something else says nothing."""
    low, high = (around / NEAR, around * NEAR) if knob.log else (around - CLOSE, around + CLOSE)
    return replace(knob, low=_rounded(max(knob.low, low)), high=_rounded(min(knob.high, high)))


def _alternating(points: Sequence[Mapping[str, Value]]) -> list[Mapping[str, Value]]:
    """The first point of each knob, then the second of each, ..."""
    by_knob: dict[str, list[Mapping[str, Value]]] = {}
    for point in points:
        by_knob.setdefault(next(iter(point)), []).append(point)
    longest = max(map(len, by_knob.values()), default=0)
    return [each[turn] for turn in range(longest) for each in by_knob.values() if turn < len(each)]


def _numbers(layers: object) -> tuple[int, ...]:
    """The layers of a setting: a sequence of numbers, or the words that `_window` makes."""
    if isinstance(layers, str):
        first, _, last = layers.partition("-")
        return tuple(range(int(first), int(last or first) + 1))
    return tuple(cast("Sequence[int]", layers))


def _lasts(knob: Knob) -> list[int]:
    """Where the windows of a knob end."""
    return [_numbers(choice)[-1] for choice in knob.choices]


def _window(last: int, width: int) -> str:
    """Consecutive layers in the words of a setting."""
    return f"{last - width + 1}-{last}" if width > 1 else str(last)


def in_words(value: object) -> object:
    """The value of a setting as a knob's choices are written."""
    if isinstance(value, (list, tuple)):
        numbers = _numbers(cast(object, value))
        return _window(numbers[-1], len(numbers))
    return value


def _rounded(value: float) -> float:
    """Three digits: more would only look exact."""
    return float(f"{value:.3g}")
