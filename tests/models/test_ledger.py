"""The weight ledger: whatever is written, nested, taken back or interrupted, every weight comes back bit for bit."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace

import pytest
import torch
from accelerate import cpu_offload
from torch import Tensor

from edit_cases import fresh
from errata.errors import NotApplied
from errata.models import ledger as ledger_module
from errata.models.ledger import Ledger
from errata.models.loading import from_parts
from errata.models.model import EditableModel
from errata.models.offload import stored
from errata.models.sites import Site

WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16}
SPECIAL = (0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-42)
PATHS = {
    "gpt2": ("h.1.mlp.c_proj", "h.1.attn.c_proj", "h.2.mlp.c_fc", "h.2.mlp.c_fc.bias", "h.0.ln_1.weight"),
    "llama": ("layers.1.mlp.down_proj", "layers.2.self_attn.o_proj", "layers.0.input_layernorm.weight"),
}
"""Maps in both storage orders, a square one, and vectors."""
Bits = dict[str, Tensor]
INTERRUPTIONS = (KeyboardInterrupt, ValueError)


def bits_of(model: EditableModel) -> Bits:
    """Every parameter as integers, so that the sign of a zero and the payload of a NaN count."""
    return {
        name: weight.detach().clone().view(WORDS[weight.itemsize])
        for name, weight in model.model.named_parameters()
    }


def same(one: Bits, other: Bits) -> bool:
    return all(torch.equal(bits, other[name]) for name, bits in one.items())


def sites_of(model: EditableModel) -> list[Site]:
    family = "gpt2" if "gpt2" in model.name else "llama"
    return [model.site_at(f"{model.architecture.blocks.rpartition('.')[0]}.{path}") for path in PATHS[family]]


def one_site(model: EditableModel) -> Site:
    return model.site("ffn", 1)


# --- any sequence of writes, levels and exceptions -------------------------------------------------


@dataclass
class Program:
    """A random program of ledger calls. `levels` is what the ledger should know: the bits when each level began."""

    model: EditableModel
    rng: random.Random
    levels: list[tuple[str, Bits]] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        return self.model.ledger

    @property
    def bits(self) -> Bits:
        return bits_of(self.model)

    def run(self, depth: int) -> None:
        """Some calls at the level that is open now, and below."""
        for _ in range(self.rng.randint(1, 5)):
            calls = [self.look, self.take_back]
            if self.levels and self.levels[-1][0] in ("temporary", "open"):
                calls += 3 * [self.write]
            if self.levels:
                calls.append(self.settle)
            if depth:
                calls += [lambda: self.level("temporary", depth), lambda: self.level("entry", depth)]
            self.rng.choice(calls)()
            assert self.ledger.mark == len(self.levels)
        if depth < 3 and self.rng.random() < 0.2:
            raise self.rng.choice(INTERRUPTIONS)

    def write(self) -> None:
        site = self.rng.choice(sites_of(self.model))
        values = torch.randn(site.weight.shape, dtype=torch.float64)
        values.view(-1)[:: self.rng.randint(1, 7)] = self.rng.choice(SPECIAL)
        self.ledger.write(site, values)
        wanted = values.to(site.weight.dtype).view(WORDS[site.weight.itemsize])
        finite = values.isfinite()
        assert torch.equal(site.weight.detach().view(wanted.dtype)[finite], wanted[finite])

    def level(self, kind: str, depth: int) -> None:
        before, number = self.bits, len(self.levels)
        opened: AbstractContextManager[None] = (
            self.ledger.temporary() if kind == "temporary" else self.ledger.entry()
        )
        try:
            with opened:
                self.levels.append(("temporary" if kind == "temporary" else "open", before))
                self.run(depth - 1)
        except INTERRUPTIONS:
            del self.levels[number:]
            assert same(self.bits, before)
            if self.rng.random() < 0.3:
                raise
            return
        if kind == "temporary":
            del self.levels[number:]
            assert same(self.bits, before)
        else:
            self.levels[number] = ("entry", before)

    def take_back(self) -> None:
        if not self.levels or self.levels[-1][0] != "entry":
            with pytest.raises(NotApplied):
                self.ledger.take_back()
            return
        self.ledger.take_back()
        assert same(self.bits, self.levels.pop()[1])

    def settle(self) -> None:
        before = self.bits
        opened = [number for number, (kind, _) in enumerate(self.levels) if kind != "entry"]
        if opened:
            self.ledger.settle()
            del self.levels[opened[-1] + 1 :]
        assert same(self.bits, before)

    def look(self) -> None:
        now, since = self.bits, self.rng.randint(0, len(self.levels))
        with self.ledger.unedited(since):
            assert same(self.bits, [*(bits for _, bits in self.levels), now][since])
        assert same(self.bits, now)


@pytest.mark.parametrize("seed", range(60))
def test_any_program_leaves_the_weights_as_they_were(seed: int) -> None:
    rng = random.Random(seed)
    model = fresh(rng.choice(list(PATHS)), rng.choice(("float32", "bfloat16", "float64")))
    before, fingerprint = bits_of(model), model.fingerprint
    program = Program(model, rng)
    for _ in range(4):
        with suppress(*INTERRUPTIONS):
            program.level(rng.choice(("temporary", "entry")), 3)
        assert model.fingerprint == fingerprint
    while program.levels:
        program.take_back()
    assert same(bits_of(model), before)
    assert (model.ledger.mark, model.ledger.changed, model.ledger.owners) == (0, (), [])


# --- the levels, one by one ------------------------------------------------------------------------


@pytest.fixture
def model() -> EditableModel:
    return fresh()


def test_a_weight_is_written_inside_a_level_only(model: EditableModel) -> None:
    site, before = one_site(model), bits_of(model)
    with pytest.raises(AssertionError, match="inside a level"):
        model.ledger.write(site, 2 * site.weight)
    with model.ledger.entry():
        model.ledger.write(site, 2 * site.weight)
    with pytest.raises(AssertionError, match="open a level of your own"):
        model.ledger.write(site, 2 * site.weight)
    model.ledger.take_back()
    assert same(bits_of(model), before)


def test_the_ledger_says_what_is_changed_and_by_whom(model: EditableModel) -> None:
    first, second = model.site("ffn", 1), model.site("attention", 2)
    before, owner = first.weight.detach().clone(), object()
    fingerprint = model.fingerprint
    with model.ledger.entry(owner):
        model.ledger.write(first, 2 * first.weight)
    with model.ledger.temporary():
        model.ledger.write(second, 2 * second.weight)
        model.ledger.write(first, 2 * first.weight)
        assert model.ledger.changed == (first.path, second.path)
        assert model.ledger.owners == [owner]
        assert torch.equal(model.ledger.originals[f"{first.path}.weight"], before)
        assert torch.equal(first.weight, 4 * before)
        assert model.fingerprint == fingerprint != model.measure_fingerprint()
        with model.ledger.unedited():
            assert model.measure_fingerprint() == fingerprint
    assert model.ledger.changed == (first.path,)
    assert torch.equal(first.weight, 2 * before)
    with pytest.raises(NotApplied, match="Take back the last change first"):
        model.ledger.take_back()
    model.ledger.take_back(owner)
    assert torch.equal(first.weight, before)


def test_a_copy_that_shares_the_weights_shares_the_ledger(model: EditableModel) -> None:
    site, fingerprint = one_site(model), model.fingerprint
    with model.ledger.temporary():
        model.ledger.write(site, 2 * site.weight)
        assert replace(model, name="other").fingerprint == fingerprint


def test_a_weight_is_kept_once_a_level_and_not_once_a_write(model: EditableModel) -> None:
    site = one_site(model)

    def copies() -> int:
        return sum(len(level.backups) for level in model.ledger._levels)

    with model.ledger.temporary():
        for _ in range(5):
            model.ledger.write(site, 2 * site.weight)
        assert copies() == 1
        for _ in range(3):
            with model.ledger.entry():
                model.ledger.write(site, 2 * site.weight)
        assert copies() == 4
        model.ledger.settle()
        assert copies() == 1
        with pytest.raises(NotApplied):
            model.ledger.take_back()
    assert copies() == 0


def test_entries_that_are_left_end_with_the_level_around_them(model: EditableModel) -> None:
    site, before = one_site(model), bits_of(model)
    with model.ledger.temporary():
        for _ in range(2):
            with model.ledger.entry(object()):
                model.ledger.write(site, 2 * site.weight)
    assert same(bits_of(model), before)
    assert not model.ledger.owners


def test_a_level_that_ends_after_the_one_around_it_puts_nothing_back(model: EditableModel) -> None:
    """As a generator that is collected late ends its `with` late."""
    site = one_site(model)

    def writes() -> Iterator[None]:
        with model.ledger.temporary():
            model.ledger.write(site, 2 * site.weight)
            yield

    before = site.weight.detach().clone()
    with model.ledger.temporary():
        left = writes()
        next(left)
    assert torch.equal(site.weight, before)
    with model.ledger.temporary():
        model.ledger.write(site, 3 * site.weight)
        assert next(left, None) is None
        assert torch.equal(site.weight, 3 * before)
    assert torch.equal(site.weight, before)


@pytest.mark.parametrize("late", [1, 2, 3])
def test_an_interruption_while_weights_are_put_back_waits(
    late: int, model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, copy, count = bits_of(model), ledger_module._copy, 0

    def interrupted(weight: Tensor, values: Tensor) -> None:
        nonlocal count
        count += 1
        if count == 3 + late:
            weight[:1].detach().zero_()
            raise KeyboardInterrupt
        copy(weight, values)

    def work() -> None:
        with model.ledger.temporary():
            for site in sites_of(model)[:3]:
                model.ledger.write(site, 2 * site.weight)

    monkeypatch.setattr(ledger_module, "_copy", interrupted)
    with torch.no_grad(), pytest.raises(KeyboardInterrupt):
        work()
    assert same(bits_of(model), before)
    assert model.ledger.mark == 0


def test_a_write_that_is_interrupted_is_put_back(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, before, copy = one_site(model), bits_of(model), ledger_module._copy

    def half(weight: Tensor, values: Tensor) -> None:
        copy(weight[:3], values[:3])
        monkeypatch.setattr(ledger_module, "_copy", copy)
        raise KeyboardInterrupt

    def work() -> None:
        with model.ledger.entry():
            model.ledger.write(site, 2 * site.weight)

    monkeypatch.setattr(ledger_module, "_copy", half)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert same(bits_of(model), before)
    assert not model.ledger.changed


def test_a_weight_that_lies_elsewhere_is_brought_and_put_back() -> None:
    plain = fresh()
    state = {name: value.clone() for name, value in plain.model.state_dict().items()}
    before = {name: value.clone() for name, value in state.items()}
    pieces = cpu_offload(fresh().model, execution_device=torch.device("cpu"), state_dict=state)
    model = from_parts(pieces, plain.tokenizer, "offloaded")
    site, fingerprint = one_site(model), model.fingerprint
    assert site.weight.device.type == "meta"
    with model.ledger.temporary():
        model.ledger.write(site, 2 * stored(site.module))
        assert torch.equal(site.weight, 2 * one_site(plain).weight)
        assert model.fingerprint == fingerprint != model.measure_fingerprint()
    assert torch.equal(site.weight, one_site(plain).weight)
    assert all(torch.equal(state[name], value) for name, value in before.items())


@pytest.mark.parametrize("family", PATHS)
def test_a_site_knows_its_parameter_and_both_orientations(family: str) -> None:
    model = fresh(family)
    names = dict(model.model.named_parameters())
    for site in sites_of(model):
        assert names[site.name] is site.weight
        assert torch.equal(site.as_matrix(site.weight), site.matrix)
        assert torch.equal(site.as_stored(site.matrix), site.weight)
