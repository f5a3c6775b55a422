"""What becomes of a model type: edited exactly, or refused with a reason. Anything else raises."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

import plain
from errata.errors import ErrataError
from errata.facts.fact import Fact
from errata.methods import METHODS, settings_for
from errata.methods.base import Task
from errata.models import EditableModel, FamilyRow, from_parts
from errata.runtime import silent
from families import tiny_tokenizer
from sites import spread_words, value_words
from spread_cases import moment_of
from walk import NOT_BUILT, decoder_is_asked_for, tiny_model_of

FACT = Fact("The capital of {} is", "Valdoria", "Kestrel", "Mirenth")
CLOSE = 1e-5
"""Of the largest element: some families compute norms and attention in float32 whatever the model's dtype."""


def outcome_of(model_type: str) -> FamilyRow:
    """The row of the table for a type, after its tiny model was edited, if it is."""
    if model_type in NOT_BUILT:
        return {"edited": False, "reason": NOT_BUILT[model_type]}
    built = tiny_model_of(model_type)
    try:
        model = from_parts(built, tiny_tokenizer("byte_level"), "this model")
    except ErrataError as error:
        return {"edited": False, "reason": str(error).replace("this model", "This model", 1)}
    check_edits(model)
    return row_of(model, decoder_is_asked_for(model_type))


def row_of(model: EditableModel, decoder: bool) -> FamilyRow:
    """What was measured."""
    row, layers = model.architecture, model.editable_layers
    factors = [model.ffn_factor(layer) for layer in layers]
    parts = [row.parts(layer) for layer in layers]
    return {
        "edited": True,
        "derived": row.derived,
        "decoder": decoder,
        "blocks": row.blocks,
        "ffn_outputs": list(dict.fromkeys(one.ffn_output for one in parts if one.ffn_output)),
        "attention_outputs": list(
            dict.fromkeys(one.attention_output for one in parts if one.attention_output)
        ),
        "order": "parallel" if model.parallel else "sequential",
        "value_at": "block" if all(factors) else "down projection",
        "factor": factors[0] if all(factors) and factors[0] != 1 else None,
        "some_blocks": len(layers) < model.layers,
        "whole_passes": not (model.passes.enters_blocks and model.passes.keeps_tokens),
    }


def check_edits(model: EditableModel) -> None:
    """PMET's edit, and MEMIT's, at the block or at the projection: each as it is written out in `plain.py`."""
    check_edit(model, "pmet")
    check_edit(model, "memit")


def check_edit(model: EditableModel, method: str) -> None:
    """Raise unless the edit is the one of the plain version, and the model then answers as the deltas say."""
    editable = model.editable_layers
    layers = list(
        editable[1:3] if len(editable) >= 4 else editable[:1]
    )  # with attention above, which reads them
    attends = model.architecture.path_if_any("attention", layers[-1]) is not None
    given: dict[str, object] = {
        "layers": layers,
        "values.steps": 3,
        "values.learning_rate": 0.2,
        "values.clamp": 0.75,
        "values.kl_weight": 0.5,
        "solve.covariance_weight": 1.0,
    }
    if method == "pmet" and not attends:
        given["values.optimize"] = ["ffn"]
    settings, _ = settings_for(model, method, given)
    factors = {model.ffn_factor(layer) for layer in layers}
    METHODS[method].check(model, settings)
    everywhere = all(model.ffn_factor(layer) is not None for layer in editable)
    assert ("block" in settings.values.optimize) == (method == "memit" and everywhere)
    task = Task(model, [FACT], ("",), moment_of, silent)
    deltas = METHODS[method].run(task, settings).deltas
    assert set(deltas) == {model.site("ffn", layer).path for layer in layers}
    for (kind, layer), update in plain_updates(model, method, settings, factors).items():
        mine = deltas[model.site(kind, layer).path].matrix
        apart = float((mine - update).abs().max() / update.abs().max())
        assert apart < (CLOSE if model.dtype == torch.float64 else 1e-2), (
            f"{method} in block {layer}: the edit is {apart:.2g} off"
        )
    check_answers(model, {path: delta.matrix for path, delta in deltas.items()})


def plain_updates(
    model: EditableModel, method: str, settings: Any, factors: set[float | None]
) -> dict[tuple[str, int], Tensor]:
    """The edit once more, in whole passes and by an explicit inverse."""
    place = "block" if "block" in settings.values.optimize else "ffn"
    target = plain.plain_target(model, FACT, ("",), **value_words(settings), relax=method == "pmet")
    (factor,) = factors if place == "block" else (1.0,)
    return plain.plain_spread(
        model,
        [FACT],
        ("",),
        {place: target.value(place)[None]},
        lambda kind, layer: moment_of(model.site(kind, layer)),
        **spread_words(settings),
        factor=factor,
    )


def check_answers(model: EditableModel, changes: Mapping[str, Tensor]) -> None:
    """The edited model says what the unedited one says with each D k added to the down projection's output."""
    ids = torch.tensor([plain.ids_of(model, FACT.question)])

    def add(change: Tensor):
        return lambda _module, inputs, output: output + (inputs[0] @ change.T).to(output)

    with torch.no_grad():
        before = model.model(input_ids=ids).logits
        with ExitStack() as stack:
            for path, change in changes.items():
                handle = model.model.get_submodule(path).register_forward_hook(add(change))
                stack.callback(handle.remove)
            said = model.model(input_ids=ids).logits
        with model.ledger.temporary():
            for path, change in changes.items():
                site = model.site_at(path)
                model.ledger.write(site, site.as_stored(site.matrix + change.to(site.weight.dtype)))
            written = model.model(input_ids=ids).logits
        after = model.model(input_ids=ids).logits
    moved = float((said - before).abs().max())
    assert torch.equal(before, after)
    assert moved > 0
    assert float((written - said).abs().max()) < CLOSE * max(moved, float(before.abs().max()))
