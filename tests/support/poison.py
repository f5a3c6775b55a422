"""Facts whose loss is not a number: the model sees NaN where it should see a token that they alone have."""

import math
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from torch import Tensor

from errata.facts.fact import Fact
from errata.models.model import EditableModel
from families import CONTEXTS


def own_token(model: EditableModel, fact: Fact, others: Sequence[Fact]) -> int:
    """The last token of the fact's subject that no text of the others holds."""
    taken = {
        token
        for other in others
        for text in (f"{other.prompt} {other.target_new}".format(other.subject), f"{other.subject} is a")
        for context in CONTEXTS
        for token in model.tokenizer(f"{context} {text}" if context else text).input_ids
    }
    own = [token for token in model.tokenizer(f"{fact.subject} is a").input_ids if token not in taken]
    return own[-1]


@contextmanager
def poisoned(model: EditableModel, token: int, after: int = 0) -> Generator[None]:
    """The model sees NaN where it should see `token`; with `after`, only from that step of a descent on.

    The passes of a descent that reach the end of the model run the same ids behind as many others, and the clean pass
    runs other ones.
    """
    times: Counter[tuple[int, bytes]] = Counter()
    given: dict[str, Tensor] = {}

    def at_call(_module: object, _inputs: object, words: dict[str, Tensor]) -> None:
        given.update(words)

    def at_start(_module: object, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        return output.masked_fill((inputs[0] == token)[..., None], math.nan) if after == 0 else None

    def at_end(_module: object, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        ids, width = given["input_ids"], given["attention_mask"].shape[1]
        times[width, ids.numpy().tobytes()] += 1
        if after == 0 or times[width, ids.numpy().tobytes()] <= after:
            return None
        return output.masked_fill(((ids == token).cumsum(dim=1) > 0)[..., None], math.nan)

    norm = model.model.get_submodule(model.architecture.final_norm)
    handles = [
        model.model.register_forward_pre_hook(at_call, with_kwargs=True),
        model.model.get_input_embeddings().register_forward_hook(at_start),
        norm.register_forward_hook(at_end),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
