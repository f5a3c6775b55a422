"""Time and memory of two programs that take turns: A B A B, so that a busy machine slows both."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock, and of the processors, of all threads together."""

    wall: float
    cpu: float

    def __truediv__(self, units: float) -> "Spent":
        return Spent(self.wall / units, self.cpu / units)

    def to_json(self) -> dict[str, float]:
        """Seconds, to four digits."""
        return {"wall": rounded(self.wall), "cpu": rounded(self.cpu)}


@dataclass(frozen=True)
class Measured(Generic[T]):
    """What a program gave, and what each of its rounds took."""

    result: T
    rounds: tuple[Spent, ...]

    @property
    def least(self) -> Spent:
        """The round that took the least processor time: the one that other programs disturbed least."""
        return min(self.rounds, key=lambda spent: spent.cpu)


def timed(program: Callable[[], T], device: torch.device) -> tuple[T, Spent]:
    """Run it once."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = program()
    _wait(device)
    return result, Spent(time.perf_counter() - wall, time.process_time() - cpu)


def alternate(
    first: Callable[[], T], second: Callable[[], U], rounds: int, device: torch.device
) -> tuple[Measured[T], Measured[U]]:
    """Run both in turn, so many times."""
    ours, theirs = [], []
    for _ in range(rounds):
        result, spent = timed(first, device)
        ours.append((result, spent))
        other, spent = timed(second, device)
        theirs.append((other, spent))
    return (
        Measured(ours[-1][0], tuple(spent for _, spent in ours)),
        Measured(theirs[-1][0], tuple(spent for _, spent in theirs)),
    )


def repeat(program: Callable[[], T], rounds: int, device: torch.device) -> Measured[T]:
    """Run one alone."""
    ran = [timed(program, device) for _ in range(rounds)]
    return Measured(ran[-1][0], tuple(spent for _, spent in ran))


def start_memory(device: torch.device) -> None:
    """From here on, the device's peak is counted anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """The most bytes held so far: on a GPU since `start_memory`, else by the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rounded(value: float) -> float:
    """To four digits."""
    return float(f"{value:.4g}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
