"""What an architecture record says, checked by measurement when a model is loaded: a few passes over a few tokens.

    d added to the down projection's output      -> the block's output changes by c d; c is measured
    d added to the attention's output            -> reaches the FFN of the same block, or not (parallel)
    a later token's stream changed               -> nothing before it changes (causal), and the FFN's other keys do not
    block output - block input                   = what attention and FFN add, as the row says

A row of `ARCHITECTURES` that does not hold is refused. A derived record gets what is measured, block by block.
"""

from dataclasses import replace
from inspect import signature
from typing import NoReturn, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from errata.errors import UnsupportedArchitecture
from errata.models.entering import measure_passes
from errata.models.model import EditableModel, Measured
from errata.models.probing import LATER, TOUCHED, Probe, Reading, at_tokens, size_of

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.08}
"""Of the size of what is compared."""
NEAR = 0.125
"""Of that tolerance: a factor is an average over many numbers, and so better known than each."""
ROUNDING = 4
"""So many roundings of a block's output hide in what a probe changes."""


def measured(model: EditableModel) -> EditableModel:
    """The model with what was measured of it, and with its record as measured where that was derived.

    Raises:
        UnsupportedArchitecture: the record does not hold, or the model cannot be edited exactly.
    """
    record = model.architecture
    if record.derived and "past_key_values" not in signature(type(model.model).forward).parameters:
        raise UnsupportedArchitecture(
            f"{model.name} is of family {record.model_type}, whose code keeps no keys and values of earlier tokens (it "
            "takes no past_key_values). Errata generates text with them."
        )
    absent = [parameter.device.type == "meta" for parameter in model.model.parameters()]
    if all(absent) or (any(absent) and not record.derived):
        return model  # without weights, or with some of them elsewhere, each a copy away: the row is believed
    try:
        with torch.no_grad():
            return _Judge(model).judged()
    except (UnsupportedArchitecture, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the model's own code raises
        first = (str(error).splitlines() or [""])[0]
        raise UnsupportedArchitecture(
            f"{model.name} is of family {record.model_type}, and running it on a few tokens of plain text fails "
            f"({type(error).__name__}: {first})."
        ) from error


class _Judge:
    """What the passes of one model say about its record."""

    def __init__(self, model: EditableModel) -> None:
        self.model, self.record, self.probe = model, model.architecture, Probe(model)
        self.tolerance = TOLERANCE.get(model.dtype, 0.08)
        self.dropped: dict[int, str] = {}
        """Blocks of a derived record that cannot be edited, and why."""
        self.silent: dict[int, str] = {}
        """Blocks of a derived record whose attention's output map is not used."""

    def judged(self) -> EditableModel:
        """Measure, then refuse or fill in."""
        clean, logits = self.probe.clean()
        if not bool(logits.isfinite().all()):
            if self.record.derived:
                self._refuse("its logits are infinite or not a number, so that nothing can be measured")
            return self.model
        self._check_maps(clean)
        factors = self._factors(clean, self.probe.touched_ffn(clean))
        parallel = self._parallel(clean, self.probe.touched_attention(clean))
        if self.record.derived:
            model = self._filled_in(factors, parallel)
        else:
            model = self.model
            self._check_row(clean, factors, parallel)
        passes = measure_passes(model, self.probe.tokens, clean.leaving, clean.inputs, logits, self.tolerance)
        return replace(model, measured=Measured(tuple(factors), parallel, passes))

    def _refuse(self, why: str) -> NoReturn:
        kind = "derived record" if self.record.derived else "row in ARCHITECTURES"
        raise UnsupportedArchitecture(
            f"The {kind} of family {self.record.model_type} does not hold for {self.model.name}: {why}. "
            "docs/errors/unsupported-architecture.md says what is measured."
        )

    def _drop(self, layer: int, why: str) -> None:
        """A block that cannot be edited: a row is refused for it, a derived record leaves it out."""
        if not self.record.derived:
            self._refuse(f"in block {layer}, {why}")
        self.dropped.setdefault(layer, why)

    def _check_maps(self, clean: Reading) -> None:
        """Each output map runs once a pass, and is the product that its weight says."""
        for layer in range(self.model.layers):
            if clean.calls.get(self.record.block_path(layer), 0) != 1:
                self._drop(layer, "the block itself runs several times in a pass, or not at all")
        for (kind, layer), path in self.probe.paths.items():
            calls, module = clean.calls.get(path, 0), self.model.model.get_submodule(path)
            if calls != 1 and kind == "attention" and self.record.derived:
                self.silent[layer] = f"{path} runs {calls} times in a pass"
            elif calls != 1:
                self._drop(layer, f"{path} runs {calls} times in a pass")
            if calls != 1:
                continue
            given, got = clean.inputs[kind, layer], clean.outputs[kind, layer]
            if kind == "ffn" and not self._agree(got, _product(module, given), got):
                self._drop(layer, f"{path} gives something else than the product with its weight")
        shared = [id(self.model.model.get_submodule(path).weight) for path in self.probe.paths.values()]
        for (kind, layer), path in self.probe.paths.items():
            if kind == "ffn" and shared.count(id(self.model.model.get_submodule(path).weight)) > 1:
                self._drop(layer, f"the weight of {path} is that of other blocks too")

    def _factors(self, clean: Reading, seen: Reading) -> list[float | None]:
        """By block: the c with which the down projection adds to the block's output; None where it is not linear."""
        factors: list[float | None] = [None] * self.model.layers
        for (kind, layer), path in self.probe.paths.items():
            if kind != "ffn" or layer in self.dropped:
                continue
            key, before = seen.inputs[kind, layer], clean.inputs[kind, layer]
            if not self._agree(key[:, :LATER], before[:, :LATER], before):
                self._drop(layer, f"what enters {path} at a token depends on what enters the FFN at others")
                continue
            given = seen.outputs[kind, layer].double() - clean.outputs[kind, layer].double()
            came = seen.leaving[layer].double() - clean.leaving[layer].double()
            if not bool((came != 0).any()):
                self._drop(layer, f"what {path} gives does not reach the block's output")
                continue
            if self._reaches_others(came):
                self._drop(layer, f"what {path} gives at a token reaches others within the block")
                continue
            factors[layer] = self._factor(given, came, clean.leaving[layer])
        return factors

    def _factor(self, given: Tensor, came: Tensor, size: Tensor) -> float | None:
        """c with came = c given at the tokens that were touched, and nothing at others; None where there is none."""
        if given.shape != came.shape:
            return None  # a family with several streams
        one, two = given[:, TOUCHED].double().flatten(), came[:, TOUCHED].double().flatten()
        if not bool(two.isfinite().all()):  # half precision overflows: the row is believed
            return None if self.record.derived or self.record.post_norm else 1.0
        c = float(one @ two / (one @ one))
        rounding = ROUNDING * torch.finfo(self.model.dtype).eps * size_of(size[:, TOUCHED])
        if size_of(two - c * one) > self.tolerance * size_of(two) + rounding:
            return None
        return self._rounded(c)

    def _reaches_others(self, came: Tensor) -> bool:
        """Whether tokens changed whose inputs did not: then a pass cannot be resumed inside the block."""
        others = [token for token in range(LATER) if token not in TOUCHED]
        size = self.tolerance * size_of(came)
        return any(size_of(at_tokens(came, token)) > size for token in others)

    def _rounded(self, c: float) -> float:
        """A factor without its measurement's error: 1, a number in the configuration, or as many digits as are sure."""
        text = self.model.model.config.get_text_config(decoder=True).to_dict()
        numbers = [1.0, *(abs(one) for one in text.values() if isinstance(one, float) and one)]
        near = min(numbers, key=lambda one: abs(one - c))
        if abs(near - c) <= NEAR * self.tolerance * abs(c):
            return near
        return float(f"{c:.9g}" if self.model.dtype == torch.float64 else f"{c:.6g}")

    def _parallel(self, clean: Reading, seen: Reading) -> bool:
        """Whether a change of the attention leaves the FFN of its block alone; refuse where the future is seen."""
        reached: list[bool] = []
        mixes: list[bool] = []
        for kind, layer in self.probe.paths:
            if layer in self.dropped or (kind, layer) not in seen.inputs:
                continue
            now, before = seen.inputs[kind, layer], clean.inputs[kind, layer]
            if kind == "attention":
                slack = max(torch.finfo(self.model.dtype).eps, 1e-5) * size_of(before)
                if size_of((now - before)[:, :LATER]) > slack:
                    self._refuse(
                        f"block {layer} lets a token see later ones, so it is no causal language model"
                    )
                if self._reaches_others(seen.leaving[layer] - clean.leaving[layer]):
                    self.silent[layer] = "what it gives at a token reaches others within the block"
                mixes.append(bool((now != before)[:, LATER + 1 :].any()))
            elif ("attention", layer) in seen.outputs:
                reached.append(bool((now != before)[:, TOUCHED].any()))
        if mixes and not any(mixes):
            self._refuse("what enters the attention's output maps does not depend on other tokens")
        return bool(reached) and not any(reached)

    def _check_row(self, clean: Reading, factors: list[float | None], parallel: bool) -> None:
        """Raise unless the row says what was measured, and the sum over a block is what it says."""
        said = self.record.runs_in_parallel(self.model.model.config)
        if parallel != said:
            words = {True: "side by side", False: "one after the other"}
            self._refuse(f"attention and FFN run {words[parallel]}, and the row says {words[said]}")
        for layer, factor in enumerate(factors):
            plain = factor == 1
            if plain == self.record.post_norm:
                adds = "as it is" if plain else "not as it is" if factor is None else f"times {factor:g}"
                self._refuse(
                    f"in block {layer} the down projection's output joins the residual stream {adds}"
                )
            left = clean.leaving[layer] - clean.entering[layer] - self._added(clean, layer)
            if not self._agree(left, torch.zeros_like(left), clean.leaving[layer]):
                self._refuse(f"the output of block {layer} is not its input plus what attention and FFN add")

    def _added(self, clean: Reading, layer: int) -> Float[Tensor, "row seq d"]:
        """What the row says attention and FFN add: their outputs, behind the norms that read them."""
        total = torch.zeros_like(clean.leaving[layer])
        for kind in ("ffn", "attention"):
            output = clean.outputs[kind, layer]
            normed = [got for given, got in clean.norms.get(layer, []) if torch.equal(given, output)]
            total += normed[0] if normed and self.record.post_norm else output
        return total

    def _filled_in(self, factors: list[float | None], parallel: bool) -> EditableModel:
        """The model with its derived record as measured.

        Raises:
            UnsupportedArchitecture: no block is left that can be edited.
        """
        left = [layer for kind, layer in self.probe.paths if kind == "ffn" and layer not in self.dropped]
        if not left:
            layer, why = next(iter(self.dropped.items()))
            self._refuse(f"in block {layer}, {why}, and no other block can be edited")
        others = dict(self.record.others)
        for layer, reason in self.dropped.items():
            others[layer] = replace(self.record.parts(layer), ffn_output=None, ffn_inputs=(), reason=reason)
        for layer, reason in self.silent.items():
            parts = others.get(layer, self.record.parts(layer))
            others[layer] = replace(parts, attention_output=None, reason=parts.reason or reason)
        record = replace(
            self.record,
            parallel=parallel,
            post_norm=any(factors[layer] is None for layer in left),
            others=tuple(sorted(others.items())),
        )
        return replace(self.model, architecture=record)

    def _agree(self, one: Tensor, two: Tensor, size: Tensor) -> bool:
        """Whether two tensors are the same but for rounding, in the measure of a third."""
        return size_of(one - two) <= self.tolerance * size_of(size)


def _product(module: nn.Module, given: Tensor) -> Tensor:
    """The map of a plain linear module."""
    weight, bias = cast(Tensor, module.weight), cast("Tensor | None", module.bias)
    return functional.linear(given, weight.T if isinstance(module, Conv1D) else weight, bias)
