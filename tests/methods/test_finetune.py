"""Fine-tuning: a plain loop of PyTorch's Adam agrees; bounds, stops, seeds; what is kept, left out and refused."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from errata.edits.deltas import Delta
from errata.edits.edit import load_edit
from errata.errors import PromptTooLong, SettingsError
from errata.facts.fact import Fact
from errata.methods import finetune as module
from errata.methods.finetune import FinetuneSettings, trained_sites
from errata.methods.registry import settings_for
from errata.models.loading import from_parts
from errata.models.model import EditableModel
from errata.passes.prompts import EncodedRow, PromptBatch
from errata.planning.plan import edit
from errata.settings.method_presets import load_presets
from errata.settings.schema import build
from families import CONTEXTS, FACTS, FAMILIES, tiny_model
from finetune_cases import assert_untouched, equal, weights_of
from plain import double_throughout, plain_row
from tiny import fresh_model

FORMS: dict[str, dict[str, object]] = {
    "local": {"preset": "local", "layers": [2], "batch_size": 3, "epochs": 3, "learning_rate": 1e-2},
    "ft-w": {"preset": "ft-w", "layers": [1], "batch_size": 3, "epochs": 3},
    "ft-l": {"preset": "ft-l", "layers": [0], "weights": "ffn", "epochs": 4, "norm_bound": 1e-3},
}


Told = list[tuple[str, int, int]]


def settings_of(form: str = "local", **given: object) -> FinetuneSettings:
    chosen = {**FORMS[form], **given}
    return settings_for(tiny_model("gpt2"), "finetune", chosen, str(chosen.pop("preset")))[0]


def deltas_of(
    model: EditableModel,
    facts: Sequence[Fact] = FACTS,
    form: str = "local",
    contexts: Sequence[str] | None = None,
    seed: int = 0,
    **given: object,
) -> dict[str, Delta]:
    chosen = {**FORMS[form], **given}
    preset = str(chosen.pop("preset"))
    return dict(edit(model, facts, "finetune", chosen, contexts=contexts, seed=seed, preset=preset).deltas)


# --- what is computed ------------------------------------------------------------------------------


def plain_loss(model: EditableModel, fact: Fact, contexts: Sequence[str], end: bool) -> Tensor:
    """One text after the other through the whole model, unpadded."""
    each: list[Tensor] = []
    for context in contexts:
        row = plain_row(model, context, fact.prompt, fact.subject, fact.target_new)
        ids, target = row.ids, row.target
        if end:
            ids, target = [*ids, target[-1]], [*target, model.tokenizer.eos_token_id]
        logits = model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        each.append(torch.nn.functional.cross_entropy(logits[-len(target) :], torch.tensor(target)))
    return torch.stack(each).mean()


def plain_loop(
    shared: EditableModel, facts: Sequence[Fact], settings: FinetuneSettings, contexts: Sequence[str] = ("",)
) -> dict[str, Tensor]:
    """Fine-tuning once more: a copy of the model, PyTorch's Adam on its own parameters, one text at a time."""
    model = from_parts(copy.deepcopy(shared.model), shared.tokenizer, "copy")
    wanted = {"block": "", "ffn": "mlp.", "down": model.architecture.ffn_output + ".weight"}[settings.weights]
    trained = {
        name: parameter
        for name, parameter in model.model.named_parameters()
        if any(name.startswith(f"{model.block_path(layer)}.{wanted}") for layer in settings.layers)
    }
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    decay = settings.weight_decay
    decay = len(facts) ** -0.870 * 2.718281828459045**0.156 if decay == "by_count" else decay
    adam = torch.optim.Adam(trained.values(), lr=settings.learning_rate, weight_decay=decay)
    assert not settings.shuffle
    for _ in range(settings.epochs):
        for start in range(0, len(facts), settings.batch_size):
            batch = facts[start : start + settings.batch_size]
            loss = sum(plain_loss(model, fact, contexts, settings.end_of_text) for fact in batch) / len(batch)
            adam.zero_grad()
            loss.backward()  # type: ignore[union-attr]
            adam.step()
            if settings.norm_bound is not None:
                for name, parameter in trained.items():
                    change = (parameter.detach() - before[name]).clamp(
                        -settings.norm_bound, settings.norm_bound
                    )
                    parameter.data = before[name] + change
    return {name: parameter.detach() - before[name] for name, parameter in trained.items()}


def in_matrix_form(model: EditableModel, changes: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the site's path, [d_out, d_in]; what is zero is left out."""
    found: dict[str, Tensor] = {}
    for name, change in changes.items():
        owner = model.model.get_submodule(name.rpartition(".")[0])
        linear = change.ndim == 2 and name.endswith(".weight")
        path = name.removesuffix(".weight") if linear else name
        if bool(change.any()):
            turned = change.T if linear and isinstance(owner, Conv1D) else change
            found[path] = turned if change.ndim == 2 else turned[:, None]
    return found


def with_biases(family: str) -> EditableModel:
    """The tiny model with other vectors than zeros and ones.

    The loss does not depend on a bias of the keys. Where one is zero, rounding alone decides in which direction Adam
    moves it, and with weight decay the moves grow.
    """
    shared = tiny_model(family, "float64")
    model = from_parts(copy.deepcopy(shared.model), shared.tokenizer, shared.name)
    generator = torch.Generator().manual_seed(1)
    for weight in model.model.parameters():
        if weight.ndim == 1:
            weight += 0.1 * torch.randn(weight.shape, dtype=weight.dtype, generator=generator)
    return model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_loop_agrees(family: str, form: str) -> None:
    model = with_biases(family)
    before = weights_of(model)
    settings = settings_of(form, shuffle=False)
    with double_throughout(model):
        found = deltas_of(model, form=form, shuffle=False)
        plain = in_matrix_form(model, plain_loop(model, FACTS, settings))
    assert_untouched(model, before)
    assert found.keys() == plain.keys()
    for path, change in plain.items():
        torch.testing.assert_close(found[path].matrix, change, rtol=0, atol=1e-9)


def test_contexts_that_are_given_stand_before_the_prompts() -> None:
    model = tiny_model("llama", "float64")
    with double_throughout(model):
        found = deltas_of(model, contexts=CONTEXTS, shuffle=False)
        plain = in_matrix_form(model, plain_loop(model, FACTS, settings_of(shuffle=False), CONTEXTS))
    for path, change in plain.items():
        torch.testing.assert_close(found[path].matrix, change, rtol=0, atol=1e-9)
    assert not equal(found, deltas_of(model, shuffle=False))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_what_is_trained(family: str) -> None:
    model = tiny_model(family)
    block = {site.path for site in model.block_sites(1)}
    sites = {
        weights: {site.path for site in trained_sites(model, settings_of(layers=[1], weights=weights))}
        for weights in ("block", "ffn", "down")
    }
    assert sites["block"] == block
    assert sites["ffn"] == {path for path in block if ".mlp." in path}
    assert sites["down"] == {model.site("ffn", 1).path}
    assert len(trained_sites(model, settings_of(layers=[1, 3], weights="block"))) == 2 * len(block)


def test_decay_by_count_falls_with_the_number_of_facts() -> None:
    settings = settings_of("ft-w")
    assert settings.decay_for(1) == pytest.approx(1.168827)
    assert settings.decay_for(10_000) == pytest.approx(3.8704e-4, rel=1e-4)
    assert settings_of(weight_decay=0.25).decay_for(10_000) == 0.25


@pytest.mark.parametrize("bound", [5e-4, 5e-5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_element_changes_by_more_than_the_bound(dtype: str, bound: float) -> None:
    """The nearest float32 number to 5e-4 is above it, the one to 5e-5 below."""
    model = tiny_model("gpt2", dtype)
    for delta in deltas_of(model, norm_bound=bound, epochs=4).values():
        assert delta.matrix.dtype == torch.float32
        largest = float(delta.matrix.abs().max())
        assert largest <= bound
        assert largest > 0.999 * bound


# --- what is predicted, and in which order ---------------------------------------------------------


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[PromptBatch]:
    """Every batch that is run, the first pass over all facts included."""
    seen: list[PromptBatch] = []
    batch_rows = module.batch_rows

    def recorded(model: EditableModel, encoded: Sequence[EncodedRow]) -> PromptBatch:
        seen.append(batch_rows(model, encoded))
        return seen[-1]

    monkeypatch.setattr(module, "batch_rows", recorded)
    return seen


def rows_of(batch: PromptBatch) -> list[tuple[Tensor, Tensor]]:
    return list(zip(batch.tokens.ids, batch.tokens.mask, strict=True))


def answers(batch: PromptBatch) -> list[list[int]]:
    return [batch.predict_id[batch.predict_row == row].tolist() for row in range(len(batch.fact))]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma"])
def test_the_loss_is_on_target_and_end_of_text_alone(family: str, batches: list[PromptBatch]) -> None:
    model = tiny_model(family)
    end = model.tokenizer.eos_token_id
    deltas_of(model, shuffle=False, batch_size=4, epochs=1)
    batch = batches[-1]
    rows = [plain_row(model, "", fact.prompt, fact.subject, fact.target_new) for fact in FACTS]
    assert answers(batch) == [[*row.target, end] for row in rows]
    inputs = [ids[mask].tolist() for ids, mask in rows_of(batch)]
    assert inputs == [[*row.ids, row.target[-1]] for row in rows]
    assert not any(end in ids for ids in inputs)
    for number, row in enumerate(rows):
        last = len(row.ids)
        at = batch.predict_at[batch.predict_row == number].tolist()
        assert at == list(range(last - len(row.target), last + 1))


def test_without_end_of_text_the_target_is_all(batches: list[PromptBatch]) -> None:
    model = tiny_model("gpt2")
    deltas_of(model, shuffle=False, batch_size=4, epochs=1, end_of_text=False)
    rows = [plain_row(model, "", fact.prompt, fact.subject, fact.target_new) for fact in FACTS]
    assert answers(batches[-1]) == [row.target for row in rows]


def test_every_epoch_has_every_fact_once_in_an_order_of_its_own(batches: list[PromptBatch]) -> None:
    model = tiny_model("gpt2")
    facts = [replace(FACTS[1], subject=f"Orin Vasker {word}") for word in "abcdefgh"]
    deltas_of(model, facts, batch_size=3, epochs=3)
    of_epochs = [batches[-9 + 3 * epoch :][:3] for epoch in range(3)]
    orders = [
        [tuple(ids[mask].tolist()) for batch in epoch for ids, mask in rows_of(batch)] for epoch in of_epochs
    ]
    assert [[len(batch.fact) for batch in epoch] for epoch in of_epochs] == [[3, 3, 2]] * 3
    assert all(sorted(order) == sorted(set(orders[0])) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_the_seed_decides_the_order_where_facts_are_shuffled() -> None:
    model = tiny_model("gpt2")
    one = deltas_of(model, batch_size=1, seed=1)
    assert equal(one, deltas_of(model, batch_size=1, seed=1))
    assert not equal(one, deltas_of(model, batch_size=1, seed=2))
    unshuffled = [deltas_of(model, batch_size=1, seed=seed, shuffle=False) for seed in (1, 2)]
    assert equal(*unshuffled)


# --- when it ends ----------------------------------------------------------------------------------


def test_training_ends_with_the_first_epoch_below_the_threshold() -> None:
    model = tiny_model("gpt2")
    told: Told = []
    given = {"layers": [2], "epochs": 40, "learning_rate": 2e-2, "stop_loss": 3.5}
    found = edit(
        model, FACTS, "finetune", given, preset="local", on_progress=lambda *words: told.append(words)
    )
    *epochs, last = told
    assert epochs == [("fine-tuning", done + 1, 40) for done in range(len(epochs))]
    assert last == ("fine-tuning", 40, 40)
    assert 2 < len(epochs) < 30
    without = {**given, "epochs": len(epochs) - 1, "stop_loss": 0.0}  # the last one made no step
    assert equal(dict(found.deltas), dict(edit(model, FACTS, "finetune", without, preset="local").deltas))


def test_facts_that_are_known_already_change_nothing(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    found = edit(model, FACTS, "finetune", {"layers": [2], "stop_loss": 1e3, "weight_decay": 1.0})
    assert found.deltas == {}
    assert found.facts == FACTS
    found.save(tmp_path / "edit")
    assert load_edit(tmp_path / "edit").facts == FACTS


def test_half_precision_gathers_steps_that_are_too_small_for_it() -> None:
    model = tiny_model("gpt2", "bfloat16")
    site = model.site("ffn", 2)
    (one,) = deltas_of(model, batch_size=4, epochs=1, learning_rate=1e-6).values()
    (many,) = deltas_of(model, batch_size=4, epochs=5, learning_rate=1e-6).values()
    rounded = (site.matrix.float() + one.matrix).to(torch.bfloat16) == site.matrix
    assert float(rounded.float().mean()) > 0.99
    assert float(many.matrix.abs().mean()) > 4 * float(one.matrix.abs().mean())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_training_that_diverges_is_told_and_taken_back(dtype: str) -> None:
    model = tiny_model("llama", dtype)
    before = weights_of(model)
    with pytest.raises(SettingsError, match=r"diverged in epoch [12]: .* Lower 'learning_rate' \(1e\+37\)"):
        deltas_of(model, learning_rate=1e37)
    assert_untouched(model, before)


# --- what is refused -------------------------------------------------------------------------------


def test_a_tokenizer_without_end_of_text_is_refused() -> None:
    shared = tiny_model("gpt2")
    tokenizer = copy.deepcopy(shared.tokenizer)
    tokenizer.eos_token = None
    model = from_parts(copy.deepcopy(shared.model), tokenizer, "endless")
    with pytest.raises(SettingsError, match=r"the tokenizer of endless has no end-of-text token\. Set it to"):
        deltas_of(model)
    assert deltas_of(model, end_of_text=False)


def test_a_target_that_leaves_no_room_for_its_end_is_refused() -> None:
    row = plain_row(tiny_model("gpt2"), "", FACTS[0].prompt, FACTS[0].subject, FACTS[0].target_new)
    tight = fresh_model(length=len(row.ids))
    with pytest.raises(PromptTooLong, match=r"Subject 'Valdoria': .* no end of text fits"):
        deltas_of(tight, FACTS[:1])
    assert deltas_of(tight, FACTS[:1], end_of_text=False)
    assert deltas_of(fresh_model(length=len(row.ids) + 1), FACTS[:1])


# --- presets ---------------------------------------------------------------------------------------


# model, blocks, preset: layers, weights, learning_rate, batch_size, weight_decay, norm_bound
PUBLISHED = [
    ("meta-llama/Meta-Llama-3-8B-Instruct", 32, "local", (22,), "down", 5e-4, 100, 0.0, None),
    ("Qwen/Qwen2.5-7B-Instruct", 28, "local", (6,), "down", 5e-4, 100, 0.0, None),
    ("mistralai/Mistral-7B-v0.1", 32, "local", (23,), "block", 5e-5, 100, 0.0, None),
    ("someone/new-model", 32, "local", (22,), "down", 5e-4, 100, 0.0, None),
    ("EleutherAI/gpt-j-6b", 28, "ft-w", (21,), "block", 5e-4, 64, "by_count", None),
    ("EleutherAI/gpt-j-6b", 28, "ft-l", (0,), "down", 5e-4, 64, 0.0, 5e-5),
    ("openai-community/gpt2-xl", 48, "ft-l", (0,), "down", 5e-4, 64, 0.0, 5e-4),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row[0]}-{row[2]}")
def test_presets_say_what_was_published(row: tuple[object, ...]) -> None:
    name, blocks, preset, *published = row
    values = load_presets("finetune").for_model(str(name), int(str(blocks)), str(preset)).values
    settings = build(FinetuneSettings, values)
    found = [settings.layers, settings.weights, settings.learning_rate, settings.batch_size]
    assert [*found, settings.weight_decay, settings.norm_bound] == published
    assert (settings.epochs, settings.stop_loss) == (25, 1e-2)
    assert settings.end_of_text == settings.shuffle == (preset == "local")
