"""How the published programs work, told again in plain code of our own: what the shipped path is timed against.

What is told: MEMIT's program, and PMET's, which grew from it; from reading them, nothing is copied. They compute the
same numbers as Errata, so both can be held against each other. What costs them time is kept as it is there:

optimization  one fact at a time; every step runs the whole model over every token of every row, and the head twice at
              every position (once inside the model, once more on the last block's output)
spread        for every layer two passes of the whole model over whole prompts, 128 texts at a time: one behind every
              context for the keys, one for the values; then an explicit inverse in float64
covariance    one pass over the corpus for every layer, as far as that layer; texts of 100 at a time sorted by length,
              in batches of at most three times the context's tokens
evaluation    one fact at a time: every prompt with both answers in one padded batch, logits at every position; then
              what the model writes by itself, with a cache, one fact at a time
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache

from errata.evaluation import LENGTH, SENTENCE_END
from errata.facts import Fact
from errata.methods import SiteSettings
from errata.models import EditableModel
from errata.passes import EncodedRow, encode_rows, encode_text, kl_rows, rewrite_rows
from errata.values import Place

SHARES: Mapping[str, Callable[[int], float]] = {"even": float, "sqrt": lambda left: left**0.5}
"""By what the residual is divided when so many layers are left."""
TEXTS_AT_ONCE = 128
"""Prompts of a batch where keys and values are read."""
TEXTS_SORTED = 100
"""Texts that are tokenised, sorted and cut into batches together."""
CONTEXTS_A_BATCH = 3
"""A batch of the corpus has at most so many times the context's tokens."""


@dataclass(frozen=True)
class Values:
    """v0 and delta of one fact, by place."""

    initial: dict[Place, Float[Tensor, " d_model"]]
    delta: dict[Place, Float[Tensor, " d_model"]]
    steps: int

    def value(self, place: Place) -> Float[Tensor, " d_model"]:
        """v*."""
        return self.initial[place] + self.delta[place]


# --- optimization ----------------------------------------------------------------------------------


def optimize(
    model: EditableModel, fact: Fact, contexts: Sequence[str], settings: SiteSettings, relax: bool = True
) -> Values:
    """v* of one fact (PMET's program); `relax` says whether PMET's rule for phi is in force."""
    rows = encode_rows(model, [*rewrite_rows([fact], contexts), *kl_rows([fact])])
    ids, mask = _padded([row.text.ids for row in rows], model)
    at = torch.tensor([row.lookup for row in rows], device=ids.device)
    targets = _targets(rows[:-1], ids.shape[1], ids.device)
    layer, count = settings.layers[-1], len(rows[0].text.target)
    paths = {place: _place_path(model, place, layer) for place in settings.values.optimize}
    width = model.site("ffn", layer).d_out
    delta: dict[Place, Tensor] = {
        place: torch.zeros(width, device=ids.device, requires_grad=True) for place in paths
    }
    optimizer = torch.optim.Adam(list(delta.values()), lr=settings.values.learning_rate)
    initial: dict[Place, Tensor] = {}
    reference: Tensor | None = None
    phi, step = settings.values.nll_weight, 0
    for step in range(settings.values.steps):
        optimizer.zero_grad()
        logits, hidden = _pass_with(model, ids, mask, at, paths, delta, initial)
        neutral = logits[-1:, at[-1]].float().log_softmax(dim=-1)
        reference = neutral.detach().clone() if reference is None else reference
        log_p = _head(model, hidden[:-1]).float().log_softmax(dim=-1)
        wanted = targets != -100
        likely = log_p.gather(2, targets.clamp(min=0)[..., None])[..., 0]
        nll = phi * (-(likely * wanted).sum(dim=1) / count).mean()
        kl = settings.values.kl_weight * nn.functional.kl_div(
            reference, neutral, log_target=True, reduction="batchmean"
        )  # KL(P_delta || P_0)
        decay = settings.values.decay * sum(
            delta[place].norm() / initial[place].norm() ** 2 for place in delta
        )
        loss = nll + kl + decay
        on_top = relax and bool(((log_p.argmax(dim=2) == targets) | ~wanted).all())
        learnt = float(loss.detach()) < 0.05 or (on_top and float(kl.detach()) <= 0.01)
        if learnt or step == settings.values.steps - 1:
            break
        phi = settings.values.nll_weight * (0.1 if on_top else 1.0)
        loss.backward()
        optimizer.step()
        _project(delta, initial, settings.values.clamp)
    return Values(initial, {place: one.detach() for place, one in delta.items()}, step + 1)


def _pass_with(
    model: EditableModel,
    ids: Tensor,
    mask: Tensor,
    at: Tensor,
    paths: Mapping[Place, str],
    delta: Mapping[Place, Tensor],
    initial: dict[Place, Tensor],
) -> tuple[Float[Tensor, "row seq vocab"], Float[Tensor, "row seq d_model"]]:
    """Logits, and what enters the final norm, with the deltas added; the first pass notes v0 of the bare prompt."""
    rows = torch.arange(len(ids), device=ids.device)
    last: list[Tensor] = []

    def adder(place: Place) -> Callable[[Tensor], Tensor]:
        def add(value: Tensor) -> Tensor:
            initial.setdefault(place, value[0, at[0]].detach().clone())
            value = value.clone()
            value[rows, at] = value[rows, at] + delta[place]
            return value

        return add

    changes = {path: adder(place) for place, path in paths.items()}
    with ExitStack() as stack:
        for path, change in changes.items():
            stack.enter_context(_output(model.model.get_submodule(path), change))
        stack.enter_context(
            _input(model.model.get_submodule(model.architecture.final_norm), lambda value: last.append(value))
        )
        logits = cast(Tensor, model.model(input_ids=ids, attention_mask=mask, use_cache=False).logits)
    return logits, last[0]


def _head(model: EditableModel, hidden: Float[Tensor, "row seq d_model"]) -> Float[Tensor, "row seq vocab"]:
    normed = model.model.get_submodule(model.architecture.final_norm)(hidden)
    return cast(Tensor, model.model.get_submodule(model.architecture.head)(normed))


def _targets(rows: Sequence[EncodedRow], width: int, device: torch.device) -> Tensor:
    """The token to be predicted at each place, -100 where none is."""
    targets = torch.full((len(rows), width), -100, device=device)
    for number, row in enumerate(rows):
        for position, token in zip(row.text.predicted_at, row.text.target, strict=True):
            targets[number, position] = token
    return targets


def _project(delta: Mapping[Place, Tensor], initial: Mapping[Place, Tensor], clamp: float) -> None:
    with torch.no_grad():
        for place, one in delta.items():
            limit = clamp * initial[place].norm()
            if one.norm() > limit:
                one.mul_(limit / one.norm())


# --- spread ----------------------------------------------------------------------------------------


def spread(
    model: EditableModel,
    facts: Sequence[Fact],
    contexts: Sequence[str],
    values: Float[Tensor, "fact d_model"],
    covariance: Callable[[int], Float[Tensor, "d_in d_in"]],
    settings: SiteSettings,
) -> dict[int, Float[Tensor, "d_out d_in"]]:
    """Delta of the FFN of every critical layer, from v*; the weights are put back."""
    rows = encode_rows(model, rewrite_rows(facts, contexts))
    prompts = [row.text.ids[: len(row.text.ids) - len(row.text.target) + 1] for row in rows]
    at = [row.lookup for row in rows]
    place: Place = "block" if settings.values.optimize == ("block",) else "ffn"
    several, last = len(contexts), _place_path(model, place, settings.layers[-1])
    deltas: dict[int, Tensor] = {}
    with ExitStack() as restored:
        for number, layer in enumerate(settings.layers):
            site = model.site("ffn", layer)
            each = _read(model, prompts, at, site.path, "input").reshape(len(facts), several, -1)
            keys = ((each[:, 0] + each[:, 1:].mean(dim=1)) / 2).double()
            current = _read(model, prompts[::several], at[::several], last, "output")
            residual = (values.to(current) - current).double()
            left = SHARES[settings.spread.share](len(settings.layers) - number)
            weight = settings.solve.covariance_weight
            assert weight is not None, "the published programs have lambda"
            matrix = keys.T @ keys + weight * covariance(layer).double()
            deltas[layer] = (residual / left).T @ keys @ torch.linalg.inv(matrix)
            restored.enter_context(_restored(site.weight))
            with torch.no_grad():
                site.matrix.add_(deltas[layer].to(site.weight.dtype))
    return deltas


def _read(
    model: EditableModel, prompts: Sequence[Sequence[int]], at: Sequence[int], path: str, where: str
) -> Float[Tensor, "row d"]:
    """Input or output of a module at one position of every prompt, the whole model run."""
    found: list[Tensor] = []
    module = model.model.get_submodule(path)
    hook = _input if where == "input" else _output
    for start in range(0, len(prompts), TEXTS_AT_ONCE):
        batch = slice(start, start + TEXTS_AT_ONCE)
        ids, mask = _padded(prompts[batch], model)
        seen: list[Tensor] = []
        with torch.no_grad(), hook(module, lambda value, seen=seen: seen.append(value)):
            model.model(input_ids=ids, attention_mask=mask, use_cache=False)
        found.append(seen[0][torch.arange(len(ids)), torch.tensor(at[batch])])
    return torch.cat(found)


# --- covariance ------------------------------------------------------------------------------------


def second_moment(
    model: EditableModel, layer: int, texts: Sequence[str], max_length: int, whole: bool = False
) -> Float[Tensor, "d_in d_in"]:
    """E[k k^T] of one layer, from a pass of its own over the texts.

    The programs stop the pass behind the layer; `whole` runs the blocks and the head above it too.
    """
    site = model.site("ffn", layer)
    total = torch.zeros(site.d_in, site.d_in, device=model.device)
    count = 0
    for start in range(0, len(texts), TEXTS_SORTED):
        chunk = cast("list[list[int]]", model.tokenizer(texts[start : start + TEXTS_SORTED])["input_ids"])
        for batch in _length_sorted([row[:max_length] for row in chunk], CONTEXTS_A_BATCH * max_length):
            ids, mask = _padded(batch, model)
            seen: list[Tensor] = []

            def read(value: Tensor, seen: list[Tensor] = seen) -> None:
                seen.append(value)
                if not whole:
                    raise _Enough

            with torch.no_grad(), suppress(_Enough), _input(site.module, read):
                model.model(input_ids=ids, attention_mask=mask, use_cache=False)
            keys = seen[0][mask.bool()].float()
            total += keys.T @ keys
            count += len(keys)
    return total / count


class _Enough(Exception):
    pass


def _length_sorted(rows: Iterable[list[int]], tokens: int) -> Generator[list[list[int]]]:
    batch: list[list[int]] = []
    for row in sorted(filter(len, rows), key=len, reverse=True):
        if batch and (len(batch) + 1) * len(batch[0]) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


# --- evaluation ------------------------------------------------------------------------------------

Likelihoods = dict[tuple[str, str], list[float]]
"""log P of each token of an answer, by prompt and answer."""


def evaluate_fact(
    model: EditableModel, fact: Fact, asked: Sequence[tuple[str, tuple[str, ...]]]
) -> tuple[Likelihoods, list[int]]:
    """How likely the answers of one fact's prompts are, and what the model writes after its own prompt."""
    pairs = [(prompt, answer) for prompt, answers in asked for answer in answers]
    texts = [encode_text(model, prompt, answer) for prompt, answer in pairs]
    ids, mask = _padded([(*text.ids, text.target[-1]) for text in texts], model)
    with torch.no_grad():
        logits = model.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    likely: Likelihoods = {}
    for number, (pair, text) in enumerate(zip(pairs, texts, strict=True)):
        likely[pair] = [
            float(logits[number, position].float().log_softmax(dim=-1)[token])
            for position, token in zip(text.predicted_at, text.target, strict=True)
        ]
    return likely, _write(model, fact)


def _write(model: EditableModel, fact: Fact) -> list[int]:
    """The likeliest tokens after the fact's prompt, up to the end of the sentence, one after the other."""
    prompt = encode_text(model, fact.question, None).ids
    least = len(encode_text(model, fact.question, fact.target_new).target)
    ends: set[int] = set(model.tokenizer.all_special_ids)
    fed, cache = torch.tensor([prompt], device=model.device), None
    written: list[int] = []
    with torch.no_grad():
        while len(written) < max(LENGTH, least):
            out = model.model(input_ids=fed, past_key_values=cache, use_cache=True)
            cache, token = cast(Cache, out.past_key_values), int(out.logits[0, -1].argmax())
            if token in ends:
                break
            written.append(token)
            if len(written) >= least and SENTENCE_END.search(str(model.tokenizer.decode(written)).strip()):
                break
            fed = torch.tensor([[token]], device=model.device)
    return written


# --- what they share -------------------------------------------------------------------------------


def _place_path(model: EditableModel, place: Place, layer: int) -> str:
    return model.block_path(layer) if place == "block" else model.architecture.site_path(place, layer)


def _padded(rows: Sequence[Sequence[int]], model: EditableModel) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
    return ids, mask


@contextmanager
def _output(module: nn.Module, see: Callable[[Tensor], Tensor | None]) -> Generator[None]:
    """Let `see` look at the module's output, and replace it by what it gives back."""

    def hook(_module: nn.Module, _inputs: object, output: object) -> object:
        return see(cast(Tensor, output))

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _input(module: nn.Module, see: Callable[[Tensor], object]) -> Generator[None]:
    """Let `see` look at the module's input."""

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        see(inputs[0])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _restored(weight: nn.Parameter) -> Generator[None]:
    before = weight.detach().clone()
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)
