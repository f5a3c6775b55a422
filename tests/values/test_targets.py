"""The Optimization stage: the plain version (`plain.py`) agrees, and no fact depends on the others beside it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from errata.errors import OutOfMemory, PromptTooLong, SettingsError
from errata.facts.fact import Fact
from errata.facts.probes import Neighbor
from errata.models.model import EditableModel
from errata.passes import clean, memory, resume
from errata.passes.prompts import batch_rows, encode_rows
from errata.passes.resume import Resumed
from errata.values import targets as targets_module
from errata.values.descent import Trace
from errata.values.settings import Place
from errata.values.targets import Targets, optimize_targets, rows_for
from families import CONTEXTS, FACTS, FAMILIES, tiny_model
from plain import PlainTarget, double_throughout, plain_target
from poison import own_token, poisoned
from sites import ValueStage, stage_of, value_words
from tolerances import DEPTH, FORWARD, TRAINING, assert_agree, tolerance

EASY = (
    Fact("Today I see {}", "Valdoria", "was"),
    Fact("The harp of {}", "Orin Vasker", "the"),
    Fact("{}", "Jonas Whitlock", "is"),
    Fact("{} is", "Zentro", "the"),
)
"""One-token targets, the first three right behind the subject: a random model learns those three in a few steps."""
BASE: dict[str, object] = {
    "layers": (1, 2),
    "steps": 4,
    "learning_rate": 0.5,
    "clamp": 0.15,
    "decay": 0.5,
    "kl_weight": 0.5,
    "nll_weight": 1.0,
    "kl_position": "subject",
    "optimize": ("block",),
}
BOTH: dict[str, object] = {"optimize": ("attention", "ffn")}
FAST: dict[str, object] = {"learning_rate": 1.0, "clamp": 30.0, "decay": 0.02, "steps": 7}
NEIGHBORS = (
    Neighbor("The mother tongue of {} is", "Mira Tolland", "Velish near the harp"),
    Neighbor("{} works in", "Hale Corvin", "Tessaly"),
)
ASSISTED = (
    replace(
        FACTS[0],
        neighbors=NEIGHBORS,
        preserve_prompts=("{} was created by", "Today I see {}", "{} plays the"),
    ),
    replace(FACTS[2], neighbors=NEIGHBORS[1:], preserve_prompts=("The harp of {} is in",)),
    FACTS[1],
    replace(EASY[0], neighbors=(Neighbor("Today I see {}", "Zentro", "was"),)),
)
"""Facts with two neighbors, one, and none; the last one and its neighbor are easy."""
# name: facts, what differs from BASE, whether PMET's rule for phi is in force
CASES: dict[str, tuple[Sequence[Fact], dict[str, object], bool]] = {
    "memit": (FACTS, {}, False),
    "pmet": (FACTS, BOTH, True),
    "pmet without attention": (FACTS[:2], {"optimize": ("ffn",)}, True),
    "KL at the end": (FACTS[1:3], {"kl_position": "end"}, False),
    "stops by loss": (EASY[1:], {**FAST, "nll_weight": 0.015, "decay": 0.0, "kl_weight": 0.0}, False),
    "stops by argmax and KL": (EASY[:2], {**FAST, "kl_weight": 0.004, **BOTH}, True),
    "stops by probability": (EASY, {**FAST, "stop_probability": 0.06}, False),
    "along the gradient": (ASSISTED, {"optimizer": "gradient", "learning_rate": 0.05, **BOTH}, True),
    "along the gradient, clamped": (FACTS, {"optimizer": "gradient", "clamp": 0.3}, False),
    "relaxed phi": (EASY[:2], {**FAST, "kl_weight": 0.1, "learning_rate": 2.0, **BOTH}, True),
    "neighbors": (ASSISTED, {"neighbor_weight": 0.3, "neighbor_count": 2}, False),
    "neighbors behind a prefix": (ASSISTED, {"neighbor_weight": 1.0, "neighbor_prefix": True, **BOTH}, True),
    "neighbors as published": (
        ASSISTED,
        {**FAST, **BOTH, "neighbor_weight": 1.0, "neighbor_count": 2, "neighbor_loss": "published"},
        True,
    ),
    "the rest of the subject": (
        ASSISTED,
        {"preserve": "subject", "preserve_weight": 2.0, "preserve_rows": 2},
        False,
    ),
    "at the prompt's last token": (ASSISTED, {"lookup": "prompt_last", **BOTH}, True),
    "at the prompt's last token, with all terms": (
        ASSISTED,
        {"lookup": "prompt_last", "preserve": "subject", "neighbor_weight": 0.3, "kl_position": "end"},
        False,
    ),
}


def settings_of(**values: object) -> ValueStage:
    return stage_of(ValueStage, BASE, values)


def off(mine: object, theirs: object) -> float:
    """The largest difference, as a part of the largest element."""
    one, other = (torch.as_tensor(value, dtype=torch.float64) for value in (mine, theirs))
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-300))


def deltas_of(trace: Trace | PlainTarget, place: Place) -> Tensor:
    return torch.stack([deltas[place] for deltas in trace.deltas])


def assert_same(found: Targets, index: int, plain: PlainTarget, allowed: float) -> None:
    trace = found.traces[index]
    assert trace.stop == plain.stop
    for name in ("loss", "nll", "kl", "decay", "neighbor", "preserve", "nll_factor", "nll_each"):
        assert off(getattr(trace, name), getattr(plain, name)) <= allowed, name
    for place in plain.initial:
        assert off(deltas_of(trace, place), deltas_of(plain, place)) <= allowed
        assert off(found.initial[place][index], plain.initial[place]) <= allowed
        assert off(found.delta[place][index], plain.delta[place]) <= allowed
        assert off(found.value(place)[index], plain.value(place)) <= allowed


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_version_agrees_in_float64(family: str, case: str) -> None:
    facts, values, relax = CASES[case]
    model, settings = tiny_model(family, "float64"), settings_of(**values)
    contexts = CONTEXTS if case in ("memit", "pmet") else CONTEXTS[:2]
    with double_throughout(model):
        found = optimize_targets(model, facts, contexts, settings, relax=relax, record_deltas=True)
        plain = [plain_target(model, fact, contexts, **value_words(settings), relax=relax) for fact in facts]
    for index in range(len(facts)):
        assert_same(found, index, plain[index], 1e-9)
    assert_shown(case, model, found)


@pytest.mark.parametrize("case", ["stops by argmax and KL", "the rest of the subject"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_are_resumed_at_different_tokens_agree_in_float64(
    family: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, values, relax = CASES[case]
    model, settings = tiny_model(family, "float64"), settings_of(**values)
    assert not resume.aligns(model), "in float64 the last bits of a row do not depend on others"
    assert resume.aligns(tiny_model(family, "float32"))
    monkeypatch.setattr(resume, "aligns", lambda _: True)
    monkeypatch.setitem(clean.PASS_TOKENS, "cpu", 0)  # contexts are run once however few rows have them
    with double_throughout(model):
        found = optimize_targets(model, facts, CONTEXTS, settings, relax=relax, record_deltas=True)
        plain = [plain_target(model, fact, CONTEXTS, **value_words(settings), relax=relax) for fact in facts]
    for index in range(len(facts)):
        assert_same(found, index, plain[index], 1e-9)


def assert_shown(case: str, model: EditableModel, found: Targets) -> None:
    """A case that no longer meets the rule that it is for would test nothing."""
    if case in ("memit", "pmet"):
        parts = [
            float(torch.linalg.vector_norm(delta) / torch.linalg.vector_norm(found.initial[place][index]))
            for index, trace in enumerate(found.traces)
            for deltas in trace.deltas
            for place, delta in deltas.items()
        ]
        assert max(parts) == pytest.approx(0.15, rel=1e-12), "no delta was ever projected"
    if model.architecture.post_norm and case in ("stops by argmax and KL", "relaxed phi"):
        return  # the norm behind bounds what a delta can do: the target need not come out on top
    if case.startswith("stops by "):
        assert case.removeprefix("stops by ") in {trace.stop for trace in found.traces}
    if case == "relaxed phi":
        factors = {round(factor, 12) for trace in found.traces for factor in trace.nll_factor}
        assert factors == {0.1, 1.0}


@pytest.mark.parametrize("case", ["memit", "pmet"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_version_agrees_in_float32(family: str, case: str) -> None:
    facts, values, relax = CASES[case]
    model, settings = tiny_model(family, "float32"), settings_of(**values)
    found = optimize_targets(model, facts[:2], CONTEXTS, settings, relax=relax, record_deltas=True)
    for index, fact in enumerate(facts[:2]):
        plain = plain_target(model, fact, CONTEXTS, **value_words(settings), relax=relax)
        assert_same(found, index, plain, tolerance(torch.float32, FORWARD, DEPTH * TRAINING))


# --- no fact depends on another --------------------------------------------------------------------

MIXED = (EASY[1], FACTS[2], EASY[0], FACTS[1])
"""Of many lengths; the easy ones stop and leave the batch while the others go on."""
STEPS = tolerance(torch.float64, FORWARD, DEPTH * TRAINING)


def assert_equal(one: Targets, index: int, other: Targets, place_in_other: int) -> None:
    mine, theirs = one.traces[index], other.traces[place_in_other]
    assert (mine.stop, len(mine.loss)) == (theirs.stop, len(theirs.loss))
    assert off(mine.loss, theirs.loss) <= STEPS
    for place in one.initial:
        assert off(one.value(place)[index], other.value(place)[place_in_other]) <= STEPS


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fact_alone_ends_as_among_others_in_any_order_and_batch(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(family, "float64")
    settings = settings_of(**{**FAST, **BOTH, "kl_weight": 0.004, "steps": 5})
    with double_throughout(model):
        together = optimize_targets(model, MIXED, CONTEXTS, settings, relax=True)
        backwards = optimize_targets(model, MIXED[::-1], CONTEXTS, settings, relax=True)
        monkeypatch.setattr(memory, "MOST", 1)
        alone = optimize_targets(model, MIXED, CONTEXTS, settings, relax=True)
    if not model.architecture.post_norm:
        assert len({len(trace.loss) for trace in together.traces}) > 1, "no fact left the batch early"
    for index in range(len(MIXED)):
        assert_equal(together, index, backwards, len(MIXED) - 1 - index)
        assert_equal(together, index, alone, index)


def scarce(monkeypatch: pytest.MonkeyPatch, most: int, raised: Exception) -> list[int]:
    """Let batches of more than `most` facts run out of memory; the list fills with the sizes tried."""
    tried: list[int] = []
    whole = targets_module.optimize_batch

    def limited(model, batch, *rest):  # type: ignore[no-untyped-def]
        tried.append(int(batch.fact.max()) + 1)
        if tried[-1] > most:
            raise raised
        return whole(model, batch, *rest)

    monkeypatch.setattr(targets_module, "optimize_batch", limited)
    return tried


CPU_FULL = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"
)


@pytest.mark.parametrize(
    "raised", [CPU_FULL, RuntimeError("CUDA out of memory. Tried to allocate"), MemoryError()]
)
def test_a_batch_that_memory_does_not_suffice_for_is_halved_and_ends_the_same(
    raised: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("gpt2", "float64")
    settings = settings_of(**{**FAST, "steps": 3})
    with double_throughout(model):
        roomy = optimize_targets(model, MIXED, CONTEXTS, settings)
        tried = scarce(monkeypatch, 1, raised)
        halved = optimize_targets(model, MIXED, CONTEXTS, settings)
    assert tried[0] == len(MIXED)
    assert tried.count(1) == len(MIXED)
    assert "tried" in caplog.text
    for index in range(len(MIXED)):
        assert_equal(roomy, index, halved, index)


def test_memory_too_small_for_one_fact_is_told_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model("gpt2")
    before = hooks_of(model)
    scarce(monkeypatch, 0, CPU_FULL)
    with pytest.raises(OutOfMemory, match="does not suffice to optimise a single fact"):
        optimize_targets(model, FACTS[:2], CONTEXTS, settings_of(steps=2))
    assert hooks_of(model) == before


def hooks_of(model: EditableModel) -> list[list[int]]:
    return [list(module._forward_hooks) for module in model.model.modules()]


def test_an_error_that_is_not_about_memory_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    scarce(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        optimize_targets(tiny_model("gpt2"), FACTS[:2], CONTEXTS, settings_of(steps=2))


def test_less_free_memory_gives_smaller_batches_in_powers_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    rows = [encode_rows(model, rows_for([fact], CONTEXTS, settings_of().values)) for fact in MIXED]
    need = max(memory.bytes_of_fact(model, each, 1) for each in rows)
    sizes = []
    for free in (0, 2 * need, 9 * need, 2**50):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        sizes.append(memory.facts_at_once(model, rows, 1))
    assert sizes == [1, 1, 4, memory.MOST]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_empty_context_alone_is_enough(family: str) -> None:
    model = tiny_model(family, "float32")
    found = optimize_targets(model, FACTS[:2], ("",), settings_of(steps=2))
    assert [len(row) for trace in found.traces for row in trace.nll_each] == [1] * 4
    assert all(trace.nll == pytest.approx([row[0] for row in trace.nll_each]) for trace in found.traces)


def test_progress_counts_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(memory, "MOST", 1)
    optimize_targets(
        model, EASY[:3], CONTEXTS, settings_of(steps=1), on_progress=lambda *words: told.append(words)
    )
    assert told == [("optimization", done, 3) for done in (1, 2, 3)]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_are_left_of_a_part_go_on_as_before(
    family: str, aligned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "aligns", lambda _: aligned)
    model = tiny_model(family, "float32")
    batch = batch_rows(model, encode_rows(model, rows_for(FACTS, CONTEXTS, settings_of().values)))
    last = batch.tokens.mask.sum(dim=1) - 1
    resumed = Resumed.of(model, batch, 1, last, inside=True)
    assert any(len(batch.lookup[part.rows].unique()) > 1 for part in resumed.parts)
    for part in resumed.parts:
        assert part.lookup is not None
        assert (len(part.lookup.unique()) == 1) or not aligned
        lookup = part.start + part.lookup
        assert torch.equal(lookup, batch.lookup[part.rows])
        earliest = part.rows[lookup == lookup.min()]
        left = resumed.keep(earliest).logits_at(torch.arange(len(earliest)), last[earliest], lambda _: {})
        tokens = batch.tokens.rows(earliest)
        assert_agree(
            left, model.logits_at(tokens, torch.arange(len(earliest)), last[earliest]), FORWARD, DEPTH
        )


# --- a loss that is not a number -------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_loss_that_is_not_a_number_stops_that_fact_alone(family: str, after: int) -> None:
    model, settings = tiny_model(family, "float64"), settings_of(**BOTH)
    bad, others = FACTS[3], FACTS[:3]
    before = weights_of(model)
    with poisoned(model, own_token(model, bad, others), after), double_throughout(model):
        found = optimize_targets(model, (FACTS[0], bad, *FACTS[1:3]), CONTEXTS, settings, relax=True)
    with double_throughout(model):
        without = optimize_targets(model, others, CONTEXTS, settings, relax=True)
    assert (found.failed, found.written) == ([1], [0, 2, 3])
    assert found.traces[1].stop == "not finite"
    assert len(found.traces[1].loss) == after + 1
    for index, place in enumerate(found.written):
        assert_equal(found, place, without, index)
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())


def weights_of(model: EditableModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "'values.steps' must be at least 1 (one pass that only measures): 0"),
        ({"learning_rate": 0.0}, "'values.learning_rate' must be above 0: 0.0"),
        ({"clamp": -1.0}, "'values.clamp' must be above 0: -1.0"),
        ({"decay": -0.5}, "'values.decay' must be 0 or more: -0.5"),
        ({"kl_weight": -1.0}, "'values.kl_weight' must be 0 or more"),
        ({"nll_weight": -1.0}, "'values.nll_weight' must be 0 or more"),
        ({"optimize": ()}, "'values.optimize' must name one or more different places"),
        ({"optimize": ("ffn", "ffn")}, "different places of ('attention', 'ffn', 'block')"),
        ({"optimize": ("mlp",)}, "'values.optimize' is ('mlp',). It must be a list, each entry one of"),
        ({"stop_probability": 1.0}, "'values.stop_probability' must lie between 0 and 1, or be none: 1.0"),
        ({"stop_probability": 0.0}, "'values.stop_probability' must lie between 0 and 1"),
        ({"kl_position": "start"}, "one of 'subject', 'end'"),
    ],
)
def test_settings_that_no_run_can_use(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_of(**values)
    assert message in str(caught.value)


def test_a_prompt_longer_than_the_context_is_named() -> None:
    model = tiny_model("gpt2")
    long = Fact("It rained. " * 40 + "{} plays the", "Orin Vasker", "harp")
    with pytest.raises(PromptTooLong) as caught:
        optimize_targets(model, (FACTS[0], long), CONTEXTS, settings_of())
    message = str(caught.value)
    assert "Subject 'Orin Vasker'" in message
    assert "more than the context of tiny-gpt2 (96). Shorten the prompt" in message
