"""ROME: the plain version of a whole sequence agrees; what is kept, left out and refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from errata.edits.deltas import write_deltas
from errata.errors import CovarianceError, LayerOutOfRange, NoFactsLeft, SettingsError
from errata.facts.fact import Fact
from errata.methods import rome as module
from errata.methods.base import Changes, Task
from errata.methods.registry import settings_for
from errata.methods.rome import RomeSettings, rome
from errata.models.model import EditableModel, Site
from errata.runtime.progress import silent
from errata.settings.method_presets import load_presets
from errata.settings.schema import build
from errata.values import targets
from errata.values.store import TargetStore
from families import CONTEXTS, FACTS, FAMILIES, tiny_model
from plain import double_throughout, modules_of, plain_key, plain_target, plain_value
from sites import value_words
from tolerances import assert_agree

KEYS = ("mean", "bare", "consistent")


def settings_of(key: str = "mean", **given: object) -> RomeSettings:
    usual = {
        "layers": [2],
        "values.steps": 4,
        "values.learning_rate": 0.5,
        "values.clamp": 3.0,
        "values.kl_weight": 0.5,
        "solve.key": key,
    }
    return settings_for(tiny_model("gpt2"), "rome", {**usual, **given})[0]


def moment_of(site: Site) -> Tensor:
    """A well-conditioned E[k k^T] that is far from a multiple of the identity."""
    generator = torch.Generator().manual_seed(site.layer)
    keys = torch.randn(4 * site.d_in, site.d_in, dtype=torch.float64, generator=generator)
    keys *= torch.linspace(0.1, 3.0, site.d_in, dtype=torch.float64)
    return keys.T @ keys / len(keys)


def task_of(model: EditableModel, facts: tuple[Fact, ...] = FACTS, **rest: object) -> Task:
    given: dict[str, object] = {"contexts": CONTEXTS, "covariance": moment_of, "on_progress": silent, **rest}
    return Task(model=model, facts=facts, **given)  # type: ignore[arg-type]


def delta_of(changes: Changes) -> Tensor:
    (delta,) = changes.deltas.values()
    return delta.matrix


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def assert_untouched(model: EditableModel, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())


# --- what is computed ------------------------------------------------------------------------------


def plain_rome(model: EditableModel, facts: tuple[Fact, ...], settings: RomeSettings) -> Tensor:
    """METHODS.md, "ROME", sentence by sentence, with an explicit inverse."""
    (layer,) = settings.layers
    site = model.site("ffn", layer)
    moment = moment_of(site)
    mean_eigenvalue = torch.linalg.eigvalsh(moment).mean()
    identity = torch.eye(site.d_in, dtype=torch.float64)
    inverse = torch.linalg.inv(moment + settings.solve.covariance_ridge * mean_eigenvalue * identity)
    total = torch.zeros(site.d_out, site.d_in, dtype=torch.float64)
    chosen = value_words(settings)
    with model.ledger.temporary():
        for fact in facts:
            ffn = modules_of(model, layer).ffn
            value = plain_target(model, fact, CONTEXTS, relax=False, **chosen).value("ffn")
            bare = plain_key(model, fact, ("",), ffn, "plain")
            mean = plain_key(model, fact, CONTEXTS, ffn, "plain")
            output = plain_value(model, fact, ffn)
            if settings.solve.key == "consistent":
                output = output + site.matrix @ (mean - bare)
            first, second = {"mean": (mean, bare), "bare": (bare, bare), "consistent": (mean, mean)}[
                settings.solve.key
            ]
            u = inverse @ first
            u = u / u.norm()
            update = torch.outer(value - output, u) / (u @ second)
            model.ledger.write(site, site.as_stored(site.matrix + update))
            total += update
    return total


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_version_of_a_sequence_agrees(family: str, key: str) -> None:
    model = tiny_model(family, "float64")
    before = weights_of(model)
    settings = settings_of(key, **{"solve.covariance_ridge": 0.25 if key == "bare" else 0.0})
    with double_throughout(model):
        mine = delta_of(rome(task_of(model, FACTS[:3]), settings))
        plain = plain_rome(model, FACTS[:3], settings)
    torch.testing.assert_close(mine, plain, rtol=0, atol=1e-9 * float(plain.abs().max()))
    assert_untouched(model, before)


def test_the_written_map_puts_out_the_value_exactly() -> None:
    """Of the last fact; the ones before have been moved a little by those after them."""
    model = tiny_model("llama", "float64")
    changes = rome(task_of(model), settings_of("bare"))
    outcome = changes.outcomes[-1]
    with model.ledger.temporary():
        write_deltas(model, changes.deltas)
        output = plain_value(model, FACTS[-1], modules_of(model, 2).ffn)
    torch.testing.assert_close(output, outcome.initial["ffn"] + outcome.delta["ffn"], rtol=0, atol=1e-9)


def test_one_layer_changes_by_a_rank_of_as_many_facts() -> None:
    model = tiny_model("gpt2")
    few, many = (
        rome(task_of(model, facts), settings_of(**{"values.steps": 2})) for facts in (FACTS, FACTS * 5)
    )
    assert list(few.deltas) == list(many.deltas) == [model.site("ffn", 2).path]
    (thin,), (dense,) = few.deltas.values(), many.deltas.values()
    assert thin.rank == 4
    assert dense.dense is not None
    assert all(part.dtype == torch.float32 for delta in (thin, dense) for part in delta.tensors.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_facts_are_written_into_the_weights_that_the_edit_makes(dtype: str) -> None:
    """In bfloat16 too: rounded once, not once a fact."""
    model = tiny_model("gpt2", dtype)
    site = model.site("ffn", 2)
    last: list[Tensor] = []
    watch = lambda *_: last.append(site.weight.detach().clone())  # noqa: E731
    facts = FACTS * 3
    changes = rome(task_of(model, facts, on_progress=watch), settings_of())
    before = site.weight.detach().clone()
    with model.ledger.temporary():
        write_deltas(model, changes.deltas)
        assert not torch.equal(site.weight, before)
        assert_agree(site.weight.detach(), last[-1], 4)
    assert len(last) == len(facts)


def test_progress_is_told_fact_by_fact() -> None:
    told: list[tuple[object, ...]] = []
    rome(
        task_of(tiny_model("gpt2"), on_progress=lambda *words: told.append(words)),
        settings_of(**{"values.steps": 1}),
    )
    assert told == [("writing", number, 4) for number in (1, 2, 3, 4)]


def test_other_prompts_are_preserved_as_they_were_before_the_first_fact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model("gpt2")
    site = model.site("ffn", 2)
    before = site.weight.detach().clone()
    seen: list[bool] = []
    optimize = module.optimize_targets

    def looked_at(*arguments: object, unedited: Callable[[], object], **rest: object) -> object:
        now = site.weight.detach().clone()
        with unedited():  # type: ignore[attr-defined]
            seen.append(torch.equal(site.weight, before))
        assert torch.equal(site.weight, now)
        seen.append(torch.equal(now, before))
        return optimize(*arguments, unedited=unedited, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "optimize_targets", looked_at)
    rome(task_of(model, FACTS[:2]), settings_of())
    assert seen == [True, True, True, False]


# --- facts that are known, or cannot be written ----------------------------------------------------


def test_known_facts_are_in_the_weights_already() -> None:
    model = tiny_model("gpt2")
    alone = rome(task_of(model, FACTS[1:2]), settings_of())
    first = rome(task_of(model, FACTS[:1]), settings_of()).outcomes[0]
    changes = rome(task_of(model, FACTS[:2], known={0: first}), settings_of())
    assert torch.equal(delta_of(changes), delta_of(alone))
    assert changes.outcomes[0] is first
    assert len(changes.outcomes) == 2
    both = dict(enumerate(changes.outcomes))
    assert rome(task_of(model, FACTS[:2], known=both), settings_of()).deltas == {}


def test_a_fact_without_a_finite_update_is_left_out_and_the_next_one_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model("gpt2")
    before = weights_of(model)
    without = rome(task_of(model, (FACTS[0], FACTS[2])), settings_of())
    step = module.rome_step

    def orthogonal(model: EditableModel, fact: Fact, *rest: object) -> object:
        found = step(model, fact, *rest)  # type: ignore[arg-type]
        return replace(found, divisor=0 * found.divisor) if fact == FACTS[1] else found

    monkeypatch.setattr(module, "rome_step", orthogonal)
    changes = rome(task_of(model, FACTS[:3]), settings_of())
    assert list(changes.failed) == [1]
    assert changes.failed[1].startswith("its update was infinite or not a number")
    assert torch.equal(delta_of(changes), delta_of(without))
    with pytest.raises(
        NoFactsLeft, match="No fact could be written: of the first one, its update was infinite"
    ):
        rome(task_of(model, FACTS[1:2]), settings_of())
    assert_untouched(model, before)


def test_an_update_that_the_weights_cannot_hold_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", "float16")
    step = module.rome_step

    def tiny(model: EditableModel, fact: Fact, *rest: object) -> object:
        found = step(model, fact, *rest)  # type: ignore[arg-type]
        return replace(found, divisor=1e-7 * found.divisor) if fact == FACTS[0] else found

    monkeypatch.setattr(module, "rome_step", tiny)
    changes = rome(task_of(model, FACTS[:2]), settings_of())
    assert list(changes.failed) == [0]
    assert bool(delta_of(changes).isfinite().all())


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"layers": [1, 2]}, SettingsError, r"'layers' must be one block for rome, .*: \[1, 2\]"),
        ({"layers": []}, SettingsError, "'layers' must be one or more"),
        ({"solve.covariance_ridge": -1}, SettingsError, "'solve.covariance_ridge' must be 0 or more"),
        (
            {"solve.key": "average"},
            SettingsError,
            "'solve.key' is 'average'. It must be one of 'mean', 'bare', 'consistent'",
        ),
        ({"solve.covariance_weight": 1.0}, SettingsError, "no setting 'solve.covariance_weight'"),
    ],
)
def test_settings_that_are_refused(given: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        settings_of(**given)


def test_the_value_stands_at_the_ffn_alone() -> None:
    for wrong in (["block"], ["attention", "ffn"]):
        with pytest.raises(SettingsError, match="rome takes places of"):
            module.check(tiny_model("gpt2"), settings_of(**{"values.optimize": wrong}))


def test_second_moments_must_be_positive_definite() -> None:
    model = tiny_model("gpt2")
    before = weights_of(model)
    flat = task_of(model, covariance=lambda site: torch.zeros(site.d_in, site.d_in, dtype=torch.float64))
    with pytest.raises(CovarianceError, match="not positive definite"):
        rome(flat, settings_of())
    assert_untouched(model, before)
    with pytest.raises(LayerOutOfRange):
        rome(task_of(model), settings_of(layers=[9]))


# --- killed in the middle --------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for every fact that is optimised."""
    grown: list[int] = []
    optimize_batch = targets.optimize_batch

    def counted(*arguments: object) -> object:
        grown.append(1)
        return optimize_batch(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(targets, "optimize_batch", counted)
    return grown


@pytest.mark.parametrize("key", KEYS)
def test_a_killed_sequence_goes_on_where_it_was(key: str, tmp_path: Path, computed: list[int]) -> None:
    model = tiny_model("gemma3_text")
    before = weights_of(model)
    uninterrupted = delta_of(rome(task_of(model), settings_of(key)))

    def kill(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rome(task_of(model, keep_in=tmp_path, on_progress=kill), settings_of(key))
    assert_untouched(model, before)
    computed.clear()
    again = rome(task_of(model, keep_in=tmp_path), settings_of(key))
    assert len(computed) == 2
    assert torch.equal(delta_of(again), uninterrupted)
    computed.clear()
    assert torch.equal(delta_of(rome(task_of(model, keep_in=tmp_path), settings_of(key))), uninterrupted)
    assert computed == []


def test_what_was_found_behind_other_facts_is_not_taken(tmp_path: Path, computed: list[int]) -> None:
    model = tiny_model("gpt2")
    rome(task_of(model, FACTS[:2], keep_in=tmp_path), settings_of())
    for facts, key, found_again in (
        ((FACTS[2], FACTS[1]), "mean", 0),
        ((FACTS[1], FACTS[0]), "mean", 0),
        (FACTS[:2], "bare", 0),
        ((FACTS[0], FACTS[2]), "mean", 1),
        ((FACTS[0], replace(FACTS[1], target_new="harp")), "mean", 1),
    ):
        computed.clear()
        mine = delta_of(rome(task_of(model, facts, keep_in=tmp_path), settings_of(key)))
        assert len(computed) == 2 - found_again, (facts, key)
        assert torch.equal(mine, delta_of(rome(task_of(model, facts), settings_of(key))))
    computed.clear()
    other = task_of(model, FACTS[:2], keep_in=tmp_path, covariance=lambda site: 2 * moment_of(site))
    rome(other, settings_of())
    assert len(computed) == 2
    computed.clear()
    rome(task_of(model, FACTS[:2], keep_in=tmp_path), settings_of(**{"solve.covariance_ridge": 0.5}))
    assert len(computed) == 2


def test_a_fact_that_was_left_out_changes_nothing_for_those_after_it(
    tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what is kept: the weights are the same."""
    model = tiny_model("gpt2")
    rome(task_of(model, FACTS[1:3], keep_in=tmp_path), settings_of())
    step = module.rome_step

    def broken(model: EditableModel, fact: Fact, *rest: object) -> object:
        found = step(model, fact, *rest)  # type: ignore[arg-type]
        return replace(found, output=math.nan * found.output) if fact == FACTS[0] else found

    monkeypatch.setattr(module, "rome_step", broken)
    computed.clear()
    changes = rome(task_of(model, FACTS[:3], keep_in=tmp_path), settings_of())
    assert list(changes.failed) == [0]
    assert len(computed) == 1


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ({}, "b294cdec3aceb46115234b2be49360de"),
        ({"keys.templates": 2, "keys.preserve": "both"}, "1459ce66450f0e72f3ab17cf3e3bc0f6"),
        ({"keys.average": "half"}, None),
    ],
)
def test_values_of_the_version_with_flat_settings_are_found(
    given: dict[str, object], recorded: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests as that version computed them; other keys make other values."""
    monkeypatch.setattr(EditableModel, "measure_fingerprint", lambda _: "0" * 64)
    settings = build(RomeSettings, load_presets("rome").for_model("almanac", 10).values, given)
    store = TargetStore.of(tmp_path, tiny_model("gpt2"), ("", "I think."), settings, relax=False)
    solve = settings.solve
    change = [solve.key, solve.covariance_ridge, "source", *module.digest_beside(settings.keys)]
    recipe = store.after(change).recipe
    if recorded is None:
        assert recipe != store.after(change[:3]).recipe
    else:
        assert recipe == recorded
