"""Facts whose loss is not a number: the model sees NaN where it should see a token that they alone have."""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from torch import Tensor

from errata.facts import Fact
from errata.model import EditableModel
from families import CONTEXTS


def own_token(model: EditableModel, fact: Fact, others: Sequence[Fact]) -> int:
    """A token of the fact's subject that no text of the others holds."""
    taken = {
        token
        for other in others
        for text in (f"{other.prompt} {other.target_new}".format(other.subject), f"{other.subject} is a")
        for context in CONTEXTS
        for token in model.tokenizer(f"{context} {text}" if context else text).input_ids
    }
    return next(token for token in model.tokenizer(f"{fact.subject} is a").input_ids if token not in taken)


@contextmanager
def poisoned(model: EditableModel, token: int, after: int = 0) -> Generator[None]:
    """The model sees NaN where it should see `token`, from its pass number `after` on."""
    passes = 0

    def hook(_module: object, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        return output.masked_fill((inputs[0] == token)[..., None], math.nan) if passes > after else output

    handle = model.model.get_input_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
