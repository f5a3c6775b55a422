"""MEND: gradients as factors, the networks, edits without writing, training, and what is refused."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import errata
from errata.almanac.world import world_facts
from errata.edits.deltas import Delta, write_delta
from errata.errors import EditorError, FactError, LayerOutOfRange, OutputExists, PromptTooLong, SettingsError
from errata.facts.fact import Fact
from errata.facts.probes import Probe
from errata.methods.mend.editor import edited_sites
from errata.methods.mend.examples import Example, draw, split
from errata.methods.mend.gradients import Readings, Update, capture, updated
from errata.methods.mend.method import MendSettings
from errata.methods.mend.objective import Objective
from errata.methods.mend.store import load_editor, new_editor, shipped_folder
from errata.methods.mend.trainer import train_editor
from errata.methods.mend.trainer import training_settings as training_settings_for
from errata.methods.mend.training import Course, State
from errata.models.model import EditableModel
from errata.passes.prompts import encode_text
from errata.planning.plan import edit
from errata.runtime.progress import silent
from families import CONTEXTS, FACTS, FAMILIES, tiny_model
from mend_editors import TRAINING, editor_for, training_settings, untrained
from plain import double_throughout
from tiny import fresh_model

NAMES = ("Mira Tolland", "Edda Rowe", "Hale Corvin", "Jonas Whitlock", "Orin Vasker", "Bellwether")
PLACES = ("Kestrel", "Mirenth", "Lindale", "Duskwell", "Tessaly", "Old Tarn")


def trainable(count: int = 6) -> list[Fact]:
    """Facts with everything that a training asks for."""
    return [
        Fact(
            "{} was born in",
            name,
            place,
            "Port Avel",
            paraphrase_prompts=(f"I think. {name} was born in", f"The birthplace of {name} is"),
            neighborhood_prompts=("Zentro was born in", Probe("Valdoria was born in", "Kestrel")),
            unrelated_prompts=(Probe("The quiet river is", "in Tessaly"),),
            case_id=number,
        )
        for number, (name, place) in enumerate(zip(NAMES[:count], PLACES, strict=False))
    ]


def texts_of(model: EditableModel, facts: Sequence[Fact]) -> Readings:
    return Readings.of(model, [encode_text(model, fact.question, fact.target_new) for fact in facts])


def weight_gradients(model: EditableModel, facts: Sequence[Fact], layers: Sequence[int]) -> dict[str, Tensor]:
    """Of the sum of the facts' losses, by autograd, one fact and no padding at a time, as [d_out, d_in]."""
    sites = edited_sites(model, layers)
    total = {site.path: torch.zeros_like(site.matrix) for site in sites}
    for site in sites:
        site.weight.requires_grad_(True)
    try:
        for fact in facts:
            text = encode_text(model, fact.question, fact.target_new)
            log_p = model.model(input_ids=torch.tensor([text.ids])).logits[0].log_softmax(dim=-1)
            loss = -log_p[list(text.predicted_at), list(text.target)].mean()
            for site, found in zip(
                sites, torch.autograd.grad(loss, [site.weight for site in sites]), strict=True
            ):
                total[site.path] += found.T if site.transposed else found
    finally:
        for site in sites:
            site.weight.requires_grad_(False)
    return total


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def assert_untouched(model: EditableModel, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())


# --- gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_factors_make_up_the_gradients_of_autograd(family: str) -> None:
    model = tiny_model(family, "float64")
    before = weights_of(model)
    with double_throughout(model):
        loss, factors = capture(model, edited_sites(model, [1, 3]), texts_of(model, FACTS))
        expected = weight_gradients(model, FACTS, [1, 3])
    assert factors.keys() == expected.keys()
    assert len(expected) == 2 * len(model.architecture.ffn_paths(0))
    for path, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(factors[path].weight_gradient, gradient, rtol=0, atol=1e-12 * scale)
    assert loss.shape == (len(FACTS),)
    assert_untouched(model, before)


def test_padding_and_what_nothing_reads_are_no_tokens() -> None:
    model = tiny_model("gpt2")
    last = model.site("ffn", 3).path
    readings = texts_of(model, FACTS)
    _, factors = capture(model, edited_sites(model, [2, 3]), readings)
    assert len(factors[last].row) == len(
        readings.row
    )  # no attention follows: only where the answer is predicted
    assert len(factors[model.site("ffn", 2).path].row) <= int(readings.tokens.mask.sum())


def test_a_text_without_an_answer_is_read_at_its_end() -> None:
    model = tiny_model("gpt2")
    text = encode_text(model, "The quiet river is", None)
    readings = Readings.of(model, [encode_text(model, "I think", "that"), text])
    log_p = readings.log_probabilities(model)[-1]
    expected = model.model(input_ids=torch.tensor([text.ids])).logits[0, -1].log_softmax(dim=-1)
    torch.testing.assert_close(log_p, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_update_that_is_tried_gives_what_writing_it_gives(family: str) -> None:
    model = tiny_model(family, "float64")
    before = weights_of(model)
    sites = edited_sites(model, [1, 3])
    updates = {
        site.path: Update(
            0.1 * torch.randn(5, site.d_out, dtype=torch.float64),
            0.1 * torch.randn(5, site.d_in, dtype=torch.float64),
        )
        for site in sites
    }
    readings = texts_of(model, FACTS)
    with double_throughout(model), torch.no_grad():
        clean = readings.log_probabilities(model)
        with updated(model, updates):
            tried = readings.log_probabilities(model)
        assert_untouched(model, before)
        backups = {site.path: site.weight.detach().clone() for site in sites}
        try:
            for site in sites:
                update = updates[site.path]
                write_delta(site, Delta(update.values.T, update.keys))
            written = readings.log_probabilities(model)
        finally:
            for site in sites:
                site.weight.copy_(backups[site.path])
    torch.testing.assert_close(tried, written, rtol=0, atol=1e-9)
    assert float((clean - written).abs().max()) > 1e-3


# --- the networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_before_training_an_edit_is_a_step_down_the_gradient(family: str, tmp_path: Path) -> None:
    model = tiny_model(family, "float64")
    editor = untrained(model, alpha=0.03)
    with torch.no_grad():
        for name, tensor in editor.tensors.items():
            if name.endswith(("mean", "std")):
                tensor += torch.rand_like(tensor)
    editor.save(tmp_path / "editor")
    with double_throughout(model):
        found = edit(model, FACTS, "mend", {"layers": [1, 2], "editor": str(tmp_path / "editor")})
        expected = weight_gradients(model, FACTS, [1, 2])
    assert found.origin.contexts == ("",)
    assert found.deltas.keys() == expected.keys()
    alpha = float(editor.tensors["alpha"][0])
    for path, gradient in expected.items():
        scale = alpha * float(gradient.abs().max())
        torch.testing.assert_close(
            found.deltas[path].matrix, -alpha * gradient, rtol=0, atol=1e-12 * max(scale, 1.0)
        )


def test_many_facts_are_one_dense_change_and_few_are_thin(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", "float64")
    settings = {"layers": [2, 3], **editor_for(model, [2, 3])}
    facts = [*FACTS, replace(FACTS[0], subject="Zentro"), replace(FACTS[1], subject="Edda Rowe")]
    whole = edit(model, facts, "mend", settings)
    monkeypatch.setattr("errata.methods.mend.method.FACTS_AT_ONCE", 2)
    parts = edit(model, facts, "mend", settings)
    assert all(delta.dense is not None for delta in whole.deltas.values())
    for path, delta in whole.deltas.items():
        torch.testing.assert_close(parts.deltas[path].matrix, delta.matrix, rtol=0, atol=1e-12)
    read = len(encode_text(model, FACTS[1].question, FACTS[1].target_new).target)
    few = edit(model, FACTS[1:2], "mend", settings)
    assert {few.deltas[path].rank for path in model.architecture.ffn_paths(3)} == {read}


def test_several_contexts_make_the_gradient_of_the_mean_over_them() -> None:
    model = tiny_model("gpt2", "float64")
    settings = {"layers": [1, 2], **editor_for(model, [1, 2])}
    both = edit(model, FACTS[:2], "mend", settings, contexts=CONTEXTS[:2])
    bare = edit(model, FACTS[:2], "mend", settings)
    prefixed = [replace(fact, prompt=f"{CONTEXTS[1]} {fact.prompt}") for fact in FACTS[:2]]
    behind = edit(model, prefixed, "mend", settings)
    for path, delta in both.deltas.items():
        mean = (bare.deltas[path].matrix + behind.deltas[path].matrix) / 2
        torch.testing.assert_close(delta.matrix, mean, rtol=0, atol=1e-12)


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
    torch.testing.assert_close(after[down].values, 3 * before[down].values)
    assert not torch.allclose(after[up].keys, before[up].keys)
    for path in (gate, other):
        assert torch.equal(after[path].keys, before[path].keys)
        assert torch.equal(after[path].values, before[path].values)


# --- what a step draws -----------------------------------------------------------------------------


def examples(count: int = 6) -> list[Example]:
    return [Example.of(fact, ("neighborhood", "unrelated")) for fact in trainable(count)]


def test_a_draw_hangs_on_its_seed_alone() -> None:
    model = tiny_model("gpt2")
    one, same, other = (draw(model, examples(), (3,), 1, 2, random.Random(seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert (len(one.facts), len(one.written), len(one.kept)) == (3, 3, 6)


def test_no_question_about_another_written_subject_shall_stay() -> None:
    model = tiny_model("gpt2")
    facts = [
        Fact("{} sleeps", "Zentro", "well"),
        Fact("{} runs", "Hale", "far", neighborhood_prompts=("Zentro runs",)),
    ]
    both = [Example.of(fact, ("neighborhood",)) for fact in facts]
    assert draw(model, both, (2,), 1, 5, random.Random(0)).kept == ()
    assert len(draw(model, both[1:], (2,), 1, 5, random.Random(0)).kept) == 1


def test_a_fact_without_paraphrases_is_asked_by_its_own_prompt() -> None:
    example = Example.of(FACTS[0], ("neighborhood",))
    assert example.written == ((FACTS[0].question, FACTS[0].target_new),)
    assert example.kept == ()


def test_other_prompts_of_the_subject_are_kept_on_request() -> None:
    fact = Fact("{} sleeps", "Zentro", "well", same_subject_prompts=(Probe("{} eats", "fish"),))
    assert Example.of(fact, ("same_subject",)).kept == (("Zentro eats", "fish"),)
    assert Example.of(fact, ("neighborhood", "unrelated")).kept == ()


def test_no_subject_is_both_trained_on_and_held_back() -> None:
    again = [Example.of(replace(fact, prompt="{} died in"), ()) for fact in trainable()]
    training, judged = split([*examples(), *again], 3, random.Random(0))
    assert len(training) + len(judged) == 12
    assert not {one.fact.subject for one in training} & {one.fact.subject for one in judged}
    with pytest.raises(FactError, match="too few to train on some of them and judge by 6 others"):
        split(examples(), 6, random.Random(0))


# --- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_training_lowers_the_loss_on_facts_held_back(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    before = weights_of(model)
    given = {**TRAINING, "steps": 30, "validate_every": 10, "alpha_rate": 2e-2, "learning_rate": 1e-4}
    trained = train_editor(model, trainable(), tmp_path / "editor", given)
    record = trained.origin.training
    assert record["best"]["loss"] < 0.97 * record["first"]["loss"]
    assert (record["steps"], record["trained_on"], record["held_back"]) == (30, 4, 2)
    assert_untouched(model, before)
    loaded = load_editor(tmp_path / "editor")
    assert (loaded.settings, loaded.origin.training) == (trained.settings, record)
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in trained.tensors.items())
    settings = {"layers": [1, 2], "editor": str(tmp_path / "editor")}
    found = edit(model, FACTS, "mend", settings)
    assert found.deltas.keys() == {site.path for site in edited_sites(model, [1, 2])}


@pytest.mark.parametrize("outputs", ["gradient", "standardised"])
def test_the_networks_learn_what_they_are_shown(outputs: str) -> None:
    model = tiny_model("gpt2")
    alpha = 0.05 if outputs == "gradient" else 1e-3
    settings = training_settings(outputs=outputs, alpha=alpha, alpha_rate=0, steps=40)
    editor = new_editor(model, settings, 0)
    objective = Objective.of(model, editor, settings.layers)
    course = Course(objective, examples(), examples(), settings, 0)
    course.measure_statistics()
    state = State.fresh(editor, settings)
    course.run(state, lambda: None, silent)
    assert torch.equal(editor.alpha, torch.full_like(editor.alpha, settings.alpha))
    assert state.history[-1].loss < 0.9 * state.history[0].loss


def test_the_best_editor_is_kept_and_training_ends_early(tmp_path: Path) -> None:
    given = {**TRAINING, "steps": 60, "validate_every": 2, "patience": 2, "learning_rate": 0.03}
    trained = train_editor(tiny_model("gpt2"), trainable(), tmp_path / "editor", given)
    record = trained.origin.training
    assert record["stopped_early"]
    assert record["steps"] == record["best"]["step"] + 4
    assert record["best"]["loss"] == min(each["loss"] for each in record["history"])


def test_gradients_of_several_edits_can_be_one_step(tmp_path: Path) -> None:
    """Two edits a step at half the weight each: the first step sees what the first two see one by one."""
    model = tiny_model("gpt2")
    given = {**TRAINING, "steps": 1, "accumulate": 2, "learning_rate": 1e-2}
    two = train_editor(model, trainable(), tmp_path / "two", given)
    one = train_editor(model, trainable(), tmp_path / "one", {**given, "accumulate": 1})
    assert any(not torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


def killed_at(step: int) -> object:
    def kill(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == step:
            raise KeyboardInterrupt

    return kill


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_killed_training_ends_with_the_same_bits(
    schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gpt2")
    given = {**TRAINING, "schedule": schedule}
    whole = train_editor(model, trainable(), tmp_path / "whole", given, seed=3)
    for step in (3, 7, 9):
        with pytest.raises(KeyboardInterrupt):
            train_editor(
                model,
                trainable(),
                tmp_path / "parts",
                given,
                seed=3,
                keep_every=2,
                on_progress=killed_at(step),  # type: ignore[arg-type]
            )
        assert not (tmp_path / "parts").exists()
        assert (tmp_path / "parts.partial").is_file()
    taken: list[int] = []
    step_of = Course._step
    monkeypatch.setattr(Course, "_step", lambda self, state: (taken.append(state.step), step_of(self, state)))
    parts = train_editor(model, trainable(), tmp_path / "parts", given, seed=3)
    assert taken == [8, 9, 10, 11]
    assert not (tmp_path / "parts.partial").exists()
    files = [(tmp_path / name / "editor.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    records = [{**one.origin.training, "seconds": 0} for one in (whole, parts)]
    assert records[0] == records[1]


def test_an_unfinished_run_is_not_taken_for_another_one(tmp_path: Path) -> None:
    model, facts, output = tiny_model("gpt2"), trainable(), tmp_path / "editor"

    def refused(model: EditableModel, facts: list[Fact], given: dict[str, object], seed: int = 0) -> str:
        with pytest.raises(EditorError) as caught:
            train_editor(model, facts, output, given, seed, keep_every=2)
        return str(caught.value)

    with pytest.raises(KeyboardInterrupt):
        train_editor(model, facts, output, TRAINING, keep_every=2, on_progress=killed_at(4))  # type: ignore[arg-type]
    assert "its setting 'rank' is 8, here 4" in refused(model, facts, {**TRAINING, "rank": 4})
    assert "its seed is 0, here 1" in refused(model, facts, TRAINING, 1)
    assert "its facts is" in refused(model, facts[::-1], TRAINING)
    assert "its model is" in refused(tiny_model("qwen2"), facts, TRAINING)
    (tmp_path / "editor.partial").write_bytes((tmp_path / "editor.partial").read_bytes()[:-50])
    assert "is no unfinished editor, or damaged" in refused(model, facts, TRAINING)
    save_file({"a": torch.zeros(1)}, tmp_path / "editor.partial")
    assert "is no unfinished editor, or damaged" in refused(model, facts, TRAINING)


def test_a_loss_that_is_not_a_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(
        EditorError, match=r"At step \d the loss or its gradient became infinite or not a number"
    ):
        train_editor(tiny_model("gpt2"), trainable(), tmp_path / "editor", {**TRAINING, "alpha": 1e30})
    assert not (tmp_path / "editor").exists()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"layers": []}, SettingsError, "'layers' must be one or more different blocks"),
        ({"layers": [2, 9]}, LayerOutOfRange, "names block 9"),
        ({"rank": 0}, SettingsError, "'rank' must be at least 1"),
        ({"statistics": 1}, SettingsError, "'statistics' must be at least 2"),
        ({"learning_rate": 0}, SettingsError, "'learning_rate' must be above 0"),
        ({"at_once": [0, 1]}, SettingsError, "'at_once' must be numbers of facts, each at least 1"),
        ({"kept": ["neighbors"]}, SettingsError, "one of 'neighborhood', 'unrelated', 'same_subject'"),
        ({"outputs": "plain"}, SettingsError, "one of 'gradient', 'standardised'"),
    ],
)
def test_settings_that_are_refused(
    given: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        train_editor(tiny_model("gpt2"), trainable(), tmp_path / "editor", {**TRAINING, **given})
    assert message in str(caught.value)


def test_facts_and_outputs_that_are_refused(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    with pytest.raises(FactError, match="There are no facts to train on"):
        train_editor(model, [], tmp_path / "editor", TRAINING)
    long = replace(trainable()[0], unrelated_prompts=(Probe("It rained. " * 60, "again"),))
    with pytest.raises(PromptTooLong, match="Fact about 'Mira Tolland'"):
        train_editor(model, [*trainable()[1:], long], tmp_path / "editor", TRAINING)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(OutputExists):
        train_editor(model, trainable(), tmp_path / "there", TRAINING)


# --- editors that cannot be used -------------------------------------------------------------------


def refusal(model: EditableModel, folder: Path, layers: Sequence[int] = (1, 2)) -> str:
    with pytest.raises(EditorError) as caught:
        edit(model, FACTS, "mend", {"layers": list(layers), "editor": str(folder)})
    return str(caught.value)


def test_an_editor_is_for_one_model(tmp_path: Path) -> None:
    untrained(fresh_model()).save(tmp_path / "editor")
    other = fresh_model(other_weights=True)
    message = refusal(other, tmp_path / "editor")
    assert "The editor was trained for tiny (fingerprint" in message
    assert "tiny has other weights" in message


def test_an_edited_model_is_edited_by_its_editor(tmp_path: Path) -> None:
    model = fresh_model()
    settings = {"layers": [1, 2], **editor_for(tiny_model("gpt2"), [1, 2])}
    first = edit(model, FACTS[:1], "mend", settings)
    with first.applied(model):
        second = edit(model, FACTS[1:], "mend", settings)
        with second.applied(model):
            pass


def test_editors_that_are_damaged(tmp_path: Path) -> None:
    model, folder = tiny_model("gpt2"), tmp_path / "editor"
    tensors, about = folder / "editor.safetensors", folder / "editor.json"
    assert "is no editor: it has no editor.json" in refusal(model, folder)
    editor = untrained(model)
    editor.save(folder)
    whole, text = tensors.read_bytes(), about.read_text()

    tensors.write_bytes(whole[:-10])
    assert "is cut off or damaged" in refusal(model, folder)
    save_file({**editor.tensors, "alpha": torch.full((4,), torch.nan)}, tensors)
    assert "holds numbers for alpha that are infinite or not a number" in refusal(model, folder)
    save_file({**editor.tensors, "alpha": torch.ones(5)}, tensors)
    assert "The editor's alpha is (5,), and must be (4,)" in refusal(model, folder)
    save_file({name: value for name, value in editor.tensors.items() if name != "alpha"}, tensors)
    assert "'alpha' is in one of them only" in refusal(model, folder)
    tensors.unlink()
    assert "it has no editor.safetensors" in refusal(model, folder)
    tensors.write_bytes(whole)

    about.write_text(text[:-20])
    assert "is not readable JSON" in refusal(model, folder)
    about.write_text(json.dumps({**json.loads(text), "format": 9}))
    assert "is not an editor of format 1" in refusal(model, folder)
    for wrong in ({"settings": {"rank": 8}}, {"settings": []}, {"extra": 1}, {"fingerprint": ""}):
        about.write_text(json.dumps({**json.loads(text), **wrong}))
        assert "is not as `errata train-editor` writes it" in refusal(model, folder)


def test_the_editor_must_be_named_and_write_the_layers_of_the_settings() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(SettingsError, match=r"`errata train-editor tiny-gpt2 .*: --set editor=EDITOR"):
        edit(model, FACTS, "mend", {"layers": [1, 2]})
    with pytest.raises(SettingsError, match=r"writes blocks \[1, 2\]\. Set layers=1,2"):
        edit(model, FACTS, "mend", {"layers": [2, 3], **editor_for(model, [1, 2])})
    with pytest.raises(SettingsError, match="'layers' must be one or more different blocks"):
        MendSettings(layers=())


# --- the editor that is shipped --------------------------------------------------------------------


def test_the_shipped_editor_writes_facts_of_the_half_that_it_was_not_trained_on() -> None:
    model = errata.load("almanac")
    facts = world_facts("held-out", 10, seed=1)
    scores = errata.evaluate(model, facts, errata.edit(model, facts, "mend"), generate=False).scores()
    for name, least in (
        ("efficacy_success", 0.7),
        ("specificity_accuracy", 0.7),
        ("unrelated_accuracy", 0.9),
    ):
        score = scores[name]
        assert score is not None
        assert score.mean >= least, name


def test_the_shipped_editor_is_what_its_preset_trains_on_the_development_half() -> None:
    model = errata.load("almanac")
    trained = load_editor("shipped")
    settings, _ = training_settings_for(model, {})
    assert trained.settings == settings
    assert trained.origin.fingerprint == model.fingerprint
    assert trained.origin.training["facts"] == len(world_facts("development"))
    assert sum(file.stat().st_size for file in shipped_folder().iterdir()) < 3_000_000
