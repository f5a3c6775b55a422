"""Stages 1 to 3 once more: slow, plain, and obviously right. The oracle that what ships is compared with.

One fact at a time, one row at a time, the whole model at every step, `torch.optim.Adam`, hooks of its own, positions
found by tokenising the text up to them, modules found by watching the model run, a solve with an explicit inverse.
Nothing of the stages themselves is imported.
"""

import math
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest import mock

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from errata.facts.fact import Fact
from errata.models.model import EditableModel


@dataclass(frozen=True)
class Modules:
    """The modules of one block that the formulas name."""

    block: nn.Module
    attention: nn.Module
    ffn: nn.Module


@dataclass(frozen=True)
class PlainRow:
    ids: list[int]
    lookup: int
    target: list[int]
    """The target's ids; they are predicted at the last places of `ids`."""


@dataclass
class PlainTarget:
    """What the optimisation of one fact measured and found."""

    initial: dict[str, Tensor] = field(default_factory=dict)
    delta: dict[str, Tensor] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    decay: list[float] = field(default_factory=list)
    neighbor: list[float] = field(default_factory=list)
    preserve: list[float] = field(default_factory=list)
    nll_factor: list[float] = field(default_factory=list)
    nll_each: list[list[float]] = field(default_factory=list)
    deltas: list[dict[str, Tensor]] = field(default_factory=list)
    stop: str = ""

    def value(self, place: str) -> Tensor:
        return self.initial[place] + self.delta[place]


# --- texts and modules -----------------------------------------------------------------------------


def ids_of(model: EditableModel, text: str) -> list[int]:
    return list(model.tokenizer(text).input_ids)


def plain_row(
    model: EditableModel,
    context: str,
    template: str,
    subject: str,
    target: str | None,
    where: str = "subject_last",
) -> PlainRow:
    """The row's ids, counted off from shorter texts: what a text begins with has the same ids as the text itself."""
    before, after = template.split("{}")
    begun = f"{context} {before}{subject}" if context else f"{before}{subject}"
    prompt = ids_of(model, begun + after)
    lookup = len(ids_of(model, begun)) - 1
    assert prompt[: lookup + 1] == ids_of(model, begun), (
        "this text cannot be counted off: choose another in the test"
    )
    lookup = len(prompt) - 1 if where == "prompt_last" else lookup
    if target is None:
        return PlainRow(prompt, lookup, [])
    whole = ids_of(model, f"{begun}{after} {target}")
    assert whole[: len(prompt)] == prompt, "this text cannot be counted off: choose another in the test"
    return PlainRow(whole[:-1], lookup, whole[len(prompt) :])


def modules_of(model: EditableModel, layer: int) -> Modules:
    """The block, and of the linear maps that it runs the last one of its FFN and the last one outside it.

    Of a family without a row, whose maps have other names, those that the record says.
    """
    if model.architecture.derived:
        paths = (model.architecture.path_if_any(kind, layer) for kind in ("attention", "ffn"))
        found = [model.model.get_submodule(path) if path else nn.Identity() for path in paths]
        return Modules(model.model.get_submodule(model.block_path(layer)), *found)
    blocks = next(m for m in model.model.modules() if isinstance(m, nn.ModuleList) and len(m) == model.layers)
    ran: list[tuple[str, nn.Module]] = []
    handles = [
        module.register_forward_hook(lambda module, *_, name=name: ran.append((name, module)))
        for name, module in blocks[layer].named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    ]
    with torch.no_grad():
        model.model(input_ids=torch.tensor([[1, 2]]))
    for handle in handles:
        handle.remove()
    return Modules(
        block=blocks[layer],
        attention=[module for name, module in ran if "mlp" not in name][-1],
        ffn=[module for name, module in ran if "mlp" in name][-1],
    )


def run(model: EditableModel, ids: Sequence[int]) -> Tensor:
    """The model's logits [seq, vocab] for one row, with nothing around it."""
    return model.model(input_ids=torch.tensor([ids])).logits[0]


class _Double:
    """`torch`, for a module that asks it for float32: it gets float64."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


@contextmanager
def double_throughout(model: EditableModel) -> Generator[None]:
    """Let the model compute in float64 where its family's code insists on float32: in norms, softmax, attention.

    There the last bits would depend on how many rows and tokens are computed together: one row alone and the same row
    in a padded batch differ by 1e-8 (GPT-J's attention, Gemma 2's softmax), and nothing could be compared to 1e-9.
    """
    code = sys.modules[type(model.model).__module__]
    with mock.patch.object(code, "torch", _Double()), mock.patch.object(Tensor, "float", Tensor.double):
        yield


@contextmanager
def added(module: nn.Module, position: int, amount: Tensor, seen: list[Tensor]) -> Generator[None]:
    """Add `amount` to the module's output at one position of the row; `seen` gets what stood there before."""

    def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple) -> Tensor | tuple:
        value = output[0] if isinstance(output, tuple) else output
        seen.append(
            value.reshape(-1, value.shape[-1])[position].detach().clone()
        )  # one row, in a list or not
        value = value.clone()
        value.view(-1, value.shape[-1])[position] += amount.to(value.dtype)
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def entered(managers: Iterable[AbstractContextManager[None]]) -> Generator[None]:
    with ExitStack() as stack:
        for manager in managers:
            stack.enter_context(manager)
        yield


def read(model: EditableModel, module: nn.Module, ids: Sequence[int], position: int) -> tuple[Tensor, Tensor]:
    """The module's input and output at one position of a row."""
    seen: list[Tensor] = []

    def hook(_module: nn.Module, inputs: tuple, kwargs: dict, output: Tensor | tuple) -> None:
        given = inputs[0] if inputs else kwargs["hidden_states"]
        value = output[0] if isinstance(output, tuple) else output
        seen.extend(one.reshape(-1, one.shape[-1])[position].clone() for one in (given, value))

    handle = module.register_forward_hook(hook, with_kwargs=True)
    with torch.no_grad():
        run(model, ids)
    handle.remove()
    return seen[0], seen[1]


# --- stage 1: values -------------------------------------------------------------------------------


def plain_target(
    model: EditableModel,
    fact: Fact,
    contexts: Sequence[str],
    *,
    layers: Sequence[int],
    steps: int,
    learning_rate: float,
    clamp: float,
    decay: float,
    kl_weight: float,
    nll_weight: float,
    kl_position: str,
    optimize: Sequence[str],
    relax: bool,
    neighbor_weight: float = 0.0,
    neighbor_loss: str = "sum",
    neighbor_prefix: bool = False,
    neighbor_count: int = 1,
    preserve: str = "none",
    preserve_weight: float = 1.0,
    preserve_rows: int = 4,
    lookup: str = "subject_last",
    stop_probability: float | None = None,
    optimizer: str = "adam",
) -> PlainTarget:
    """v* of one fact: METHODS.md, "Optimization stage" and "Neighbor-assisted editing", sentence by sentence."""
    modules = modules_of(model, layers[-1])
    places: dict[str, nn.Module] = {place: getattr(modules, place) for place in optimize}
    rows = [
        plain_row(model, context, fact.prompt, fact.subject, fact.target_new, lookup) for context in contexts
    ]
    neutral = plain_row(model, "", "{} is a", fact.subject, None, lookup)
    before = contexts[1] if neighbor_prefix else ""
    neighbors = [
        plain_row(model, before, one.prompt, one.subject, one.target, lookup)
        for one in (fact.neighbors[:neighbor_count] if neighbor_weight > 0 else ())
    ]
    others = fact.preserve_prompts[:preserve_rows] if preserve == "subject" and preserve_weight > 0 else ()
    kept = [plain_row(model, "", template, fact.subject, None, lookup) for template in others]
    clean = [run(model, row.ids)[-1].detach() for row in kept]
    kl_at = neutral.lookup if kl_position == "subject" else len(neutral.ids) - 1
    hidden = model.site("ffn", layers[-1]).d_out
    dtype = torch.promote_types(next(model.model.parameters()).dtype, torch.float32)
    delta = {place: torch.zeros(hidden, dtype=dtype, requires_grad=True) for place in places}
    adam = torch.optim.Adam(list(delta.values()), lr=learning_rate)
    result = PlainTarget()
    reference: Tensor | None = None
    phi = nll_weight

    def log_p(row: PlainRow) -> Tensor:
        seen: dict[str, list[Tensor]] = {place: [] for place in places}
        with entered(added(places[place], row.lookup, delta[place], seen[place]) for place in places):
            logits = run(model, row.ids)
        if not result.initial:
            result.initial = {place: value[0].to(dtype) for place, value in seen.items()}
        return logits.to(dtype).log_softmax(dim=-1)

    for step in range(steps):
        surprisals, on_top = [], True
        for row in rows:
            predicted = log_p(row)[-len(row.target) :]
            surprisals.append(
                -sum(line[token] for line, token in zip(predicted, row.target, strict=True)) / len(row.target)
            )
            on_top = on_top and all(
                int(line.argmax()) == token for line, token in zip(predicted, row.target, strict=True)
            )
        now = log_p(neutral)[kl_at]
        if reference is None:
            reference = now.detach()
        by_neighbor = []
        for row in neighbors:
            predicted = log_p(row)[-len(row.target) :]
            by_neighbor.append(-sum(line[token] for line, token in zip(predicted, row.target, strict=True)))
            if neighbor_loss == "published":
                on_top = on_top and [int(line.argmax()) for line in predicted] == row.target
        nll = phi * sum(surprisals) / len(surprisals)
        beside = torch.zeros((), dtype=dtype)
        if neighbors and neighbor_loss == "published":
            beyond = sum(neighbor_weight * each / len(rows[0].target) for each in by_neighbor)
            nll = phi * (sum(surprisals) + beyond) / (len(surprisals) + len(neighbors))
        elif neighbors:
            means = [each / len(row.target) for each, row in zip(by_neighbor, neighbors, strict=True)]
            beside = neighbor_weight * sum(means) / len(means)
        held = torch.zeros((), dtype=dtype)
        for row, logits in zip(kept, clean, strict=True):
            then, there = logits.to(dtype).log_softmax(dim=-1), log_p(row)[-1]
            held = held + preserve_weight * (there.exp() * (there - then)).sum() / len(kept)
        kl = kl_weight * (now.exp() * (now - reference)).sum()
        shrink = decay * sum(delta[place].norm() / result.initial[place].norm() ** 2 for place in places)
        loss = nll + kl + shrink + beside + held
        result.loss.append(loss.item())
        result.nll.append(nll.item())
        result.kl.append(kl.item())
        result.decay.append(shrink.item())
        result.neighbor.append(beside.item())
        result.preserve.append(held.item())
        result.nll_factor.append(phi)
        result.nll_each.append([surprisal.item() for surprisal in surprisals])
        result.deltas.append({place: value.detach().clone() for place, value in delta.items()})
        least = min(math.exp(-surprisal) for surprisal in result.nll_each[-1])
        likely = stop_probability is not None and least >= stop_probability
        result.stop = why_stop(loss.item(), kl.item(), relax and on_top, likely, last=step == steps - 1)
        if result.stop:
            break
        phi = nll_weight * 0.1 if relax and on_top else nll_weight
        adam.zero_grad()
        loss.backward()
        if optimizer == "adam":
            adam.step()
        with torch.no_grad():
            for value in delta.values() if optimizer == "gradient" else ():
                assert value.grad is not None
                value.sub_(learning_rate * math.sqrt(hidden) * value.grad / value.grad.norm())
            for place, value in delta.items():
                limit = clamp * result.initial[place].norm()
                if value.norm() > limit:
                    value.mul_(limit / value.norm())
    result.delta = {place: value.detach().clone() for place, value in delta.items()}
    return result


def why_stop(loss: float, kl: float, on_top: bool, likely: bool, last: bool) -> str:
    if not math.isfinite(loss):
        return "not finite"
    if loss < 0.05:
        return "loss"
    if on_top and kl <= 0.01:
        return "argmax and KL"
    if likely:
        return "probability"
    return "last step" if last else ""


# --- stage 2: keys ---------------------------------------------------------------------------------


def plain_key(
    model: EditableModel,
    fact: Fact,
    contexts: Sequence[str],
    module: nn.Module,
    average: str,
    lookup: str = "subject_last",
    templates: int = 0,
) -> Tensor:
    """k of one fact: the module's input at the lookup position, averaged over the contexts; bare prompt first.

    With other wordings it is the mean over the prompt's key and theirs.
    """

    def one(context: str, template: str) -> Tensor:
        row = plain_row(model, context, template, fact.subject, None, lookup)
        return read(model, module, row.ids, row.lookup)[0].double()

    each = [one(context, fact.prompt) for context in contexts]
    if average == "plain" or len(each) == 1:
        own = sum(each) / len(each)
    else:
        own = each[0] / 2 + sum(each[1:]) / len(each[1:]) / 2
    wordings = [own, *(one("", template) for template in fact.edit_prompts[:templates])]
    return sum(wordings) / len(wordings)


def plain_value(model: EditableModel, fact: Fact, module: nn.Module, lookup: str = "subject_last") -> Tensor:
    """What the module puts out at the lookup position of the bare prompt."""
    row = plain_row(model, "", fact.prompt, fact.subject, None, lookup)
    return read(model, module, row.ids, row.lookup)[1].double()


# --- stage 3: weights ------------------------------------------------------------------------------


def plain_spread(
    model: EditableModel,
    facts: Sequence[Fact],
    contexts: Sequence[str],
    values: Mapping[str, Tensor],
    covariance: Callable[[str, int], Tensor],
    *,
    layers: Sequence[int],
    covariance_weight: float,
    share: str,
    write: Sequence[str],
    average: str,
    covariance_ridge: float = 0.0,
    lookup: str = "subject_last",
    templates: int = 0,
    preserve: str = "none",
    preserve_weight: float = 1.0,
    preserve_rows: int = 4,
    factor: float = 1.0,
) -> dict[tuple[str, int], Tensor]:
    """Delta [d_out, d_in] of each (kind, layer), in float64.

    `values`: v* [fact, d] by kind of map written; those of kind "block" stand for the FFN's, measured at the block, to
    which an FFN adds `factor` times its output.
    """
    updates: dict[tuple[str, int], Tensor] = {}
    held: set[tuple[str, str]] = set()
    """Template and subject of each key that is preserved; the tests' facts ask for none that they change."""
    for fact in facts:
        own = (fact.prompt, *fact.edit_prompts[:templates])
        if preserve in ("relation", "both"):
            for one in fact.neighbors[:preserve_rows]:
                held |= {(template, one.subject) for template in (one.prompt, *own)}
        if preserve in ("subject", "both"):
            held |= {(template, fact.subject) for template in fact.preserve_prompts[:preserve_rows]}
    before: list[tuple[nn.Parameter, Tensor]] = []
    last = modules_of(model, layers[-1])
    for number, layer in enumerate(layers):
        left = len(layers) - number
        for kind in ("attention", "ffn"):
            if kind not in write:
                continue
            module = getattr(modules_of(model, layer), kind)
            place = "block" if "block" in values else kind
            k = torch.stack(
                [plain_key(model, fact, contexts, module, average, lookup, templates) for fact in facts]
            )
            current = torch.stack([plain_value(model, fact, getattr(last, place), lookup) for fact in facts])
            residual = (values[place].double() - current) / (left if share == "even" else left**0.5)
            residual = residual / (factor if place == "block" else 1.0)
            moment = covariance(kind, layer).double()
            moment = moment + covariance_ridge * moment.trace() / len(moment) * torch.eye(len(moment))
            matrix = covariance_weight * moment + k.T @ k
            for template, subject in held:
                p = plain_key(model, Fact(template, subject, "x"), ("",), module, "plain", lookup)
                matrix = matrix + preserve_weight * torch.outer(p, p)
            solved = torch.linalg.inv(matrix)
            update = residual.T @ k @ solved
            updates[kind, layer] = update
            weight = module.weight
            before.append((weight, weight.detach().clone()))
            stored = update.T if isinstance(module, Conv1D) else update
            with torch.no_grad():
                weight.copy_((weight.double() + stored).to(weight.dtype))
    with torch.no_grad():
        for weight, old in before:
            weight.copy_(old)
    return updates
