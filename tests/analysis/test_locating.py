"""Causal tracing of many facts: the batched runs against plain ones, what is left out, kill and resume, the layers."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from errata.analysis import locating
from errata.analysis.locating import TraceSettings, TraceWords, locate, usual_window
from errata.analysis.restoring import Traceable, restore_everywhere, window_at
from errata.errors import FactError, SettingsError
from errata.facts.fact import Fact
from errata.models.model import EditableModel
from errata.passes.prompts import Row, encode_rows
from families import FACTS, FAMILIES, tiny_model
from tiny import SAYS, parrot
from tracing import Place, trace

KNOWN = tuple(
    Fact(prompt, subject, "harp", SAYS)
    for prompt, subject in (
        ("The capital of {} is", "Valdoria"),
        ("{} plays the", "Orin Vasker"),
        ("I think. The mother tongue of {} is", "Jonas Whitlock"),
        ("In the field of {}", "Zentro"),
    )
)
"""What the parrot says."""


def plainly(
    model: EditableModel, one: Traceable, noise: torch.Tensor | None, put: dict[str, tuple[int, torch.Tensor]]
) -> tuple[float, dict[str, torch.Tensor]]:
    """One run of one question, its outputs, and P of the answer; `put` by path: a token and what is put there."""
    seen: dict[str, torch.Tensor] = {}
    handles = []

    def hook(path: str) -> Callable[..., Any]:
        def run(_: torch.nn.Module, __: Any, output: Any) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            if path == model.architecture.embeddings and noise is not None:
                hidden[0, slice(*one.subject)] += noise
            if path in put:
                token, value = put[path]
                hidden[0, token] = value
            seen[path] = hidden[0].clone()
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return run

    paths = [model.architecture.embeddings, *(model.block_path(n) for n in range(model.layers))]
    paths += [model.architecture.site_path(k, n) for k in ("ffn", "attention") for n in range(model.layers)]
    for path in paths:
        handles.append(model.model.get_submodule(path).register_forward_hook(hook(path)))
    with torch.no_grad():
        logits = model.model(torch.tensor([one.ids])).logits[0, -1]
    for handle in handles:
        handle.remove()
    return float(logits.double().softmax(-1)[one.answer]), seen


@pytest.mark.parametrize("family", FAMILIES)
def test_many_at_once_are_as_one_at_a_time(family: str) -> None:
    """Every kind, layer and token of two questions of different length, two draws of noise, in float64 to 1e-9."""
    model = tiny_model(family, "float64")
    chosen = (FACTS[1], FACTS[2])
    rows = [Row(n, "rewrite", fact.prompt, fact.subject, fact.target_true) for n, fact in enumerate(chosen)]
    questions = [Traceable.of(row) for row in encode_rows(model, rows)]
    samples, window = 2, 3
    generator = torch.Generator().manual_seed(1)
    noises = [
        torch.randn((samples, one.subject[1] - one.subject[0], 32), generator=generator, dtype=torch.float64)
        for one in questions
    ]
    found = restore_everywhere(model, questions, noises, window, lambda: None)
    for one, noise, got in zip(questions, noises, found, strict=True):
        clean, values = plainly(model, one, None, {})
        assert got.clean == pytest.approx(clean, abs=1e-9)
        runs = [plainly(model, one, noise[sample], {})[0] for sample in range(samples)]
        assert got.noised == pytest.approx(sum(runs) / samples, abs=1e-9)
        assert got.restored["state"].shape == (model.layers, len(one.ids))
        for layer in range(model.layers):
            inside = window_at(layer, window, model.layers)
            paths = {
                "state": [model.block_path(layer)],
                "ffn": [model.architecture.site_path("ffn", n) for n in inside],
                "attention": [model.architecture.site_path("attention", n) for n in inside],
            }
            for kind, places in paths.items():
                for token in range(len(one.ids)):
                    put = {path: (token, values[path][token]) for path in places}
                    runs = [plainly(model, one, noise[sample], put)[0] for sample in range(samples)]
                    expected = pytest.approx(sum(runs) / samples, abs=1e-9)
                    assert float(got.restored[kind][layer, token]) == expected, (kind, layer, token)


@pytest.mark.parametrize("place", ["subject", "end"])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_whole_passes_through_the_model(family: str, place: Place) -> None:
    """What enters a block is what has left the one before."""
    model = tiny_model(family, "float64")
    traced = trace(model, FACTS, place)
    rows = [Row(n, "rewrite", fact.prompt, fact.subject, fact.target_true) for n, fact in enumerate(FACTS)]
    questions = [Traceable.of(row) for row in encode_rows(model, rows)]
    noises = [traced.draw[n : n + 1, slice(*one.subject)] for n, one in enumerate(questions)]
    found = restore_everywhere(model, questions, noises, 1, lambda: None)
    for number, (one, got) in enumerate(zip(questions, found, strict=True)):
        token = one.subject[1] - 1 if place == "subject" else len(one.ids) - 1
        assert got.clean == pytest.approx(float(traced.clean[number]), abs=1e-9)
        assert got.noised == pytest.approx(float(traced.noised[number]), abs=1e-9)
        states = [float(traced.restored[layer, number]) for layer in range(1, model.layers)]
        assert got.restored["state"][:-1, token].tolist() == pytest.approx(states, abs=1e-9)
    assert not torch.allclose(traced.noised, traced.clean)


def test_the_windows_are_those_of_the_published_program() -> None:
    assert list(window_at(20, 10, 48)) == list(range(15, 25))
    assert list(window_at(2, 10, 48)) == list(range(7))
    assert list(window_at(3, 1, 4)) == [3]
    assert [usual_window(layers) for layers in (48, 28, 10, 2)] == [10, 10, 3, 1]


def test_only_what_the_model_knows_is_traced() -> None:
    model = parrot()
    unknown = Fact("The capital of {} is", "Valdoria", "Kestrel", "Old Tarn near Kestrel")
    nameless = Fact("{} was created by", "Zentro", "Bellwether")
    found = locate(model, [unknown, *KNOWN, nameless], samples=1)
    assert [one.question for one in found.effects] == [fact.question for fact in KNOWN]
    reasons = {one.fact: one.reason for one in found.left_out}
    assert set(reasons) == {unknown, nameless}
    assert "target_true" in reasons[nameless]
    assert reasons[unknown].startswith("the model says ")
    with pytest.raises(FactError, match="knows none of the 1 facts"):
        locate(model, [unknown])


def test_the_last_state_gives_the_answer_back_and_all_tokens_before_the_subject_nothing() -> None:
    found = locate(parrot(), KNOWN, samples=2)
    for one in found.effects:
        assert one.restored["state"][-1][-1] == pytest.approx(one.clean, abs=1e-6)
        for kind in one.restored:
            before = [line[: one.subject_tokens[0]] for line in one.restored[kind]]
            assert all(value == one.noised for line in before for value in line)


class _Killed(Exception):
    pass


def test_killed_and_run_again_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locating, "FACTS_AT_ONCE", 1)
    model, facts = parrot(), KNOWN
    whole = locate(model, facts, samples=2)

    def kill(stage: str, done: int, total: int) -> None:
        if done * len(facts) > total:
            raise _Killed

    with pytest.raises(_Killed):
        locate(model, facts, samples=2, keep_in=tmp_path, on_progress=kill)
    assert 0 < len(list(tmp_path.iterdir())) < len(facts)
    told: list[int] = []
    again = locate(
        model, facts, samples=2, keep_in=tmp_path, on_progress=lambda _, done, __: told.append(done)
    )
    assert again == whole
    assert len(list(tmp_path.iterdir())) == len(facts)
    assert told == sorted(told)
    told.clear()
    assert locate(model, facts, samples=2, keep_in=tmp_path) == whole
    assert locate(model, facts, samples=2, seed=1, keep_in=tmp_path).effects != whole.effects


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    model, facts = parrot(), KNOWN
    whole = locate(model, facts, samples=1, keep_in=tmp_path)
    next(tmp_path.iterdir()).write_text("{")
    assert locate(model, facts, samples=1, keep_in=tmp_path) == whole


def test_what_makes_no_sense_is_refused() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(FactError, match="no facts"):
        locate(model, [])
    for wrong, word in (({"samples": 0}, "samples"), ({"window": 0}, "window"), ({"noise": 0.0}, "noise")):
        with pytest.raises(SettingsError, match=word):
            locate(model, FACTS, **wrong)  # type: ignore[arg-type]


def test_every_setting_is_a_keyword() -> None:
    assert {"samples", *TraceWords.__annotations__} == {one.name for one in fields(TraceSettings)}
