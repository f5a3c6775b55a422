"""Runs of the model with noise on the subject and something put back, many facts, draws, layers and tokens at once.

Below the first block in which something is put back nothing differs from the noised run, so its residual stream is kept
and the blocks below are not run again. Before the subject's first token nothing is noised, so nothing can be put back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from errata.analysis.effects import KINDS
from errata.errors import UnsupportedArchitecture
from errata.models import Change, EditableModel, Tokens
from errata.passes import EncodedRow, Part, Resumed, pad

TOKENS_AT_ONCE = 8192
"""Tokens of a batch, padding included. Fixed, so that a run that goes on later has the same batches."""
LOGITS_AT_ONCE = 2**25


@dataclass(frozen=True)
class Traceable:
    """A question with its answer's first token, and which of its tokens are the subject's."""

    row: EncodedRow
    ids: tuple[int, ...]
    """Of the question alone."""
    subject: tuple[int, int]
    answer: int

    @classmethod
    def of(cls, row: EncodedRow) -> "Traceable":
        """From a row with its true answer as target."""
        length = row.text.predicted_at[0] + 1
        start, end = row.row.subject_span
        inside = [i for i, (left, right) in enumerate(row.text.spans) if left < end and right > start]
        return cls(row, row.text.ids[:length], (inside[0], inside[-1] + 1), row.text.target[0])


@dataclass(frozen=True)
class Restored:
    """The probabilities of one fact's answer, means over the draws of noise."""

    clean: float
    noised: float
    restored: Mapping[str, Float[Tensor, "layer token"]]


@dataclass(frozen=True)
class _Group:
    """Facts that are traced together, and what is kept of their runs without and with noise."""

    model: EditableModel
    tokens: Tokens
    last: Int[Tensor, " fact"]
    answers: Int[Tensor, " fact"]
    noise: Float[Tensor, "fact sample seq d_model"]
    clean: Mapping[str, Float[Tensor, "fact seq d"]]
    """By module path: outputs of all blocks, FFNs and attentions without noise."""
    noised: Mapping[str, Float[Tensor, "fact_sample seq d_model"]]
    """By module path: outputs of all blocks with noise."""
    tuples: bool

    def probabilities(
        self, places: Int[Tensor, "run 3"], entry: int, paths: Sequence[str], entering_too: bool
    ) -> Float[Tensor, " run"]:
        """P of the answer; a run is a fact, a draw, and the token at which the outputs at `paths` are put back.

        Blocks from `entry` on are run; with `entering_too` what enters it is put back at that token as well.
        """
        fact, sample, token = places.unbind(dim=1)
        runs = torch.arange(len(places), device=places.device)
        changes: dict[str, Change] = {path: _putting(self.clean[path], fact, token) for path in paths}
        entering = None
        if entry == 0:
            changes[self.model.architecture.embeddings] = _adding(self.noise[fact, sample])
        else:
            path = self.model.block_path(entry - 1)
            entering = self.noised[path][fact * self.noise.shape[1] + sample]
            if entering_too:
                entering = _put(entering, self.clean[path], fact, token)
        part = Part(
            runs,
            torch.zeros_like(runs),
            Tokens(self.tokens.ids[fact], self.tokens.mask[fact]),
            entering,
            None,
        )
        resumed = Resumed(self.model, entry, self.tuples, (part,))
        with torch.no_grad():
            logits = resumed.logits_at(runs, self.last[fact], lambda _: changes)
        return _answer_probability(logits, self.answers[fact])


def noise_scale(model: EditableModel, questions: Sequence[Traceable]) -> float:
    """The standard deviation of the embeddings of all subjects' tokens (sigma in Meng et al. 2022, appendix B.1)."""
    ids = torch.tensor([i for one in questions for i in one.ids[slice(*one.subject)]], device=model.device)
    with torch.no_grad():
        embedded: Tensor = model.model.get_submodule(model.architecture.embeddings)(ids)
    return float(embedded.double().std())


def restore_everywhere(
    model: EditableModel,
    questions: Sequence[Traceable],
    noises: Sequence[Float[Tensor, "sample _ d_model"]],
    window: int,
    on_layer: Callable[[], None],
) -> list[Restored]:
    """Put back, in turn, every state and every window of FFN and attention outputs, at every token of every question.

    `noises` has, for each question, what is added to its subject's embeddings in each draw. A window of w at layer l
    is l - w//2 to l + (w+1)//2 - 1, as far as there are such layers (the published program). `on_layer` is called
    after each kind and layer.
    """
    group = _prepared(model, questions, noises)
    samples = noises[0].shape[0]
    clean, noised = _baselines(group, samples)
    places = torch.tensor(
        [
            (number, sample, token)
            for number, one in enumerate(questions)
            for token in range(one.subject[0], len(one.ids))
            for sample in range(samples)
        ],
        device=model.device,
    )
    found = {kind: noised[:, None, None].repeat(1, model.layers, group.tokens.ids.shape[1]) for kind in KINDS}
    for kind in KINDS:
        for layer in range(model.layers):
            means = _restore(group, kind, layer, window, places).reshape(-1, samples).mean(dim=1)
            fact, _, token = places[::samples].unbind(dim=1)
            found[kind][fact, layer, token] = means
            on_layer()
    return [
        Restored(
            float(clean[number]),
            float(noised[number]),
            {kind: found[kind][number, :, : len(one.ids)].cpu() for kind in KINDS},
        )
        for number, one in enumerate(questions)
    ]


def _check_enters(model: EditableModel) -> None:
    if not model.passes.enters_blocks:
        raise UnsupportedArchitecture(
            f"{model.name} is of family {model.architecture.model_type}, whose blocks share more than the stream that "
            "runs through them: a state cannot be put back in one block alone, so it cannot be traced."
        )


def window_at(layer: int, window: int, layers: int) -> range:
    """The layers of the window of that size at a layer."""
    return range(max(0, layer - window // 2), min(layers, layer + (window + 1) // 2))


def _restore(
    group: _Group, kind: str, layer: int, window: int, places: Int[Tensor, "run 3"]
) -> Float[Tensor, " run"]:
    if kind == "state":
        entry, paths = layer + 1, []
    else:
        inside = window_at(layer, window, group.model.layers)
        entry, paths = inside[0], [group.model.architecture.site_path(kind, one) for one in inside]
    parts = [
        group.probabilities(part, entry, paths, entering_too=kind == "state")
        for part in _split(places, _at_once(group))
    ]
    return torch.cat(parts)


def _prepared(
    model: EditableModel,
    questions: Sequence[Traceable],
    noises: Sequence[Float[Tensor, "sample _ d_model"]],
) -> _Group:
    """Run the questions without noise and with every draw of it, and keep what later runs need."""
    _check_enters(model)
    tokens = pad([one.ids for one in questions], model)
    samples, width = noises[0].shape[0], noises[0].shape[2]
    weight = model.model.get_submodule(model.architecture.embeddings).get_parameter("weight")
    noise = torch.zeros(len(questions), samples, tokens.ids.shape[1], width, dtype=weight.dtype)
    for number, (one, drawn) in enumerate(zip(questions, noises, strict=True)):
        noise[number, :, slice(*one.subject)] = drawn.to(weight.dtype)
    noise = noise.to(weight.device)
    blocks = [model.block_path(layer) for layer in range(model.layers)]
    sites = [model.architecture.site_path(kind, n) for kind in KINDS[1:] for n in range(model.layers)]
    repeated = Tokens(tokens.ids.repeat_interleave(samples, 0), tokens.mask.repeat_interleave(samples, 0))
    _, tuples = model.block_output(Tokens(tokens.ids[:1], tokens.mask[:1]), 0)
    return _Group(
        model=model,
        tokens=tokens,
        last=torch.tensor([len(one.ids) - 1 for one in questions], device=model.device),
        answers=torch.tensor([one.answer for one in questions], device=model.device),
        noise=noise,
        clean=_outputs(model, tokens, [*blocks, *sites], None),
        noised=_outputs(model, repeated, blocks, noise.flatten(0, 1)),
        tuples=tuples,
    )


def _baselines(group: _Group, samples: int) -> tuple[Float[Tensor, " fact"], Float[Tensor, " fact"]]:
    """P of each answer without noise, and with it (the mean over draws): what leaves the last block is kept of both."""
    facts = torch.arange(len(group.last), device=group.last.device)
    draw = torch.arange(samples, device=facts.device).repeat(len(facts))
    draws = torch.stack([facts.repeat_interleave(samples), draw], dim=1)
    places = torch.cat([draws, group.last[draws[:, 0]][:, None]], dim=1)
    top, size = group.model.layers, _at_once(group)
    noised = [group.probabilities(part, top, [], entering_too=False) for part in _split(places, size)]
    clean = [
        group.probabilities(part, top, [], entering_too=True) for part in _split(places[::samples], size)
    ]
    return torch.cat(clean), torch.cat(noised).reshape(-1, samples).mean(dim=1)


def _split(values: Int[Tensor, "n ..."], size: int) -> list[Int[Tensor, "part ..."]]:
    return list(torch.split(values, size))


def _at_once(group: _Group) -> int:
    """Runs in one batch."""
    by_logits = LOGITS_AT_ONCE // len(group.model.tokenizer)
    return max(1, min(TOKENS_AT_ONCE // group.tokens.ids.shape[1], by_logits))


def _outputs(
    model: EditableModel,
    tokens: Tokens,
    paths: Sequence[str],
    noise: Float[Tensor, "row seq d_model"] | None,
) -> dict[str, Float[Tensor, "row seq d"]]:
    """The outputs of modules at all tokens, without noise or with it."""
    kept: dict[str, list[Tensor]] = {path: [] for path in paths}

    def keeper(path: str) -> Change:
        def keep(hidden: Tensor) -> None:
            kept[path].append(hidden.detach())

        return keep

    rows = torch.arange(len(tokens.ids), device=tokens.ids.device)
    for part in _split(rows, max(1, TOKENS_AT_ONCE // tokens.ids.shape[1])):
        added = {} if noise is None else {model.architecture.embeddings: _adding(noise[part])}
        with (
            torch.no_grad(),
            model.hooked({path: keeper(path) for path in paths}, "output"),
            model.hooked(added, "output"),
        ):
            model.logits_at(Tokens(tokens.ids[part], tokens.mask[part]), part[:1] * 0, part[:1] * 0)
    return {path: torch.cat(parts) for path, parts in kept.items()}


def _adding(noise: Float[Tensor, "row seq d_model"]) -> Change:
    def add(hidden: Tensor) -> Tensor:
        return hidden + noise.to(hidden.device)

    return add


def _putting(
    values: Float[Tensor, "fact seq d"], fact: Int[Tensor, " row"], token: Int[Tensor, " row"]
) -> Change:
    """Puts in each row, at its token, the value that its fact has there."""

    def change(hidden: Tensor) -> Tensor:
        return _put(hidden, values, fact, token)

    return change


def _put(
    hidden: Float[Tensor, "row seq d"],
    values: Float[Tensor, "fact seq d"],
    fact: Int[Tensor, " row"],
    token: Int[Tensor, " row"],
) -> Float[Tensor, "row seq d"]:
    changed = hidden.clone()
    rows, token = torch.arange(len(fact), device=hidden.device), token.to(hidden.device)
    changed[rows, token] = values[fact.to(values.device), token.to(values.device)].to(hidden.device)
    return changed


def _answer_probability(
    logits: Float[Tensor, "run vocab"], answers: Int[Tensor, " run"]
) -> Float[Tensor, " run"]:
    wide = logits.double()
    answer = wide.gather(1, answers.to(wide.device)[:, None])[:, 0]
    return (answer - wide.logsumexp(dim=-1)).exp().to(answers.device)
