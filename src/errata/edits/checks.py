"""What an edited model says to the prompts of its facts: asked when the edit is made, and kept with it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FactCheck:
    """One fact, after the last write."""

    question: str
    target: str
    said: bool
    """Whether every token of the target is the likeliest one after the bare prompt."""
    behind_contexts: bool
    """Whether that also holds behind every context that the edit was made with."""
    probability: float
    """Of the target: the geometric mean over tokens and contexts."""
    realized: float | None
    """How much of the change that its value asks for is in the weights; None where that cannot be said."""
    reason: str = ""
    """Why it does not hold, in a sentence; "" where it does."""

    @property
    def holds(self) -> bool:
        """Whether the fact is said, with and without contexts."""
        return self.said and self.behind_contexts
