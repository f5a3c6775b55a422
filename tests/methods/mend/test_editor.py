"""MEND's networks."""

from dataclasses import replace

import torch

from errata.methods.mend.editor import edited_sites
from errata.methods.mend.gradients import capture
from errata.methods.mend.store import new_editor
from errata.planning.plan import edit
from families import CONTEXTS, FACTS, tiny_model
from mend_cases import (
    texts_of,
)
from mend_editors import editor_for, training_settings
from tolerances import DEPTH, FORWARD, assert_agree


def test_several_contexts_make_the_gradient_of_the_mean_over_them() -> None:
    model = tiny_model("gpt2", "float64")
    settings = {"layers": [1, 2], **editor_for(model, [1, 2])}
    both = edit(model, FACTS[:2], "mend", settings, contexts=CONTEXTS[:2])
    bare = edit(model, FACTS[:2], "mend", settings)
    prefixed = [replace(fact, prompt=f"{CONTEXTS[1]} {fact.prompt}") for fact in FACTS[:2]]
    behind = edit(model, prefixed, "mend", settings)
    for path, delta in both.deltas.items():
        mean = (bare.deltas[path].matrix + behind.deltas[path].matrix) / 2
        assert_agree(delta.matrix, mean, FORWARD, DEPTH)


def test_standardised_outputs_begin_as_the_standardised_gradient() -> None:
    model = tiny_model("gpt2", "float64")
    editor = new_editor(model, training_settings(outputs="standardised", alpha=2.0), 0)
    _, factors = capture(model, edited_sites(model, [1, 2]), texts_of(model, FACTS))
    editor.measure([factors])
    for path, found in factors.items():
        update = editor.update(path, found)
        for mine, raw in ((update.keys, found.inputs), (update.values / -2.0, found.gradients)):
            torch.testing.assert_close(mine, (raw - raw.mean(0)) / (raw.std(0) + 1e-7), rtol=0, atol=1e-9)


def test_maps_of_one_shape_share_a_network_and_have_their_own_scale_offset_and_rate() -> None:
    model = tiny_model("llama")
    editor = new_editor(model, training_settings(), 0)
    gate, up, down = model.architecture.ffn_paths(1)
    other = model.architecture.ffn_paths(2)[0]
    assert editor.place(gate)[0] is editor.place(up)[0] is editor.place(other)[0]
    assert editor.place(gate)[0] is not editor.place(down)[0]
    _, factors = capture(model, edited_sites(model, [1, 2]), texts_of(model, FACTS))
    network, number = editor.place(up)
    with torch.no_grad():
        for left in network.left:
            left.normal_()
        before = editor.updates(factors)
        network.offset[0][number] += 1
        network.scale[1][number] *= 2
        editor.alpha[list(editor.layout.sizes).index(down)] *= 3
        after = editor.updates(factors)
    assert_agree(after[down].values, 3 * before[down].values, 4)
    assert not torch.allclose(after[up].keys, before[up].keys)
    for path in (gate, other):
        assert torch.equal(after[path].keys, before[path].keys)
        assert torch.equal(after[path].values, before[path].values)
