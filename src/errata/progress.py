"""How a long computation tells how far it is, without knowing who listens."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called with the stage's name, how many units are done, and how many there are in all."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note."""
        ...


def silent(stage: str, done: int, total: int) -> None:
    """The listener that does nothing: the library's default."""
