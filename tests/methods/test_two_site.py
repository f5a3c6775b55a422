"""The two-site method, and what it needs of the stages: where a row is looked up, and keys that are preserved."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import errata
from errata.facts.fact import Fact
from errata.facts.preserving import with_edit_prompts
from errata.facts.probes import Neighbor
from errata.methods import two_site
from errata.methods.base import Changes, SiteSettings, Task
from errata.methods.registry import settings_for
from errata.methods.two_site import TwoSiteSettings
from errata.moments.collection import collect
from errata.moments.folder import read_moment
from errata.passes.prompts import Row, encode_rows
from errata.runtime.progress import silent
from errata.settings.layer_rules import LAYER_RULES
from errata.settings.method_presets import load_presets
from errata.settings.schema import build, flatten
from errata.solve.keys import KeyPrompts, KeyStreams
from errata.solve.least_squares import least_squares
from errata.solve.spread import Write, spread
from errata.values.descent import place_path
from families import CONTEXTS, FACTS, FAMILIES, SENTENCES, tiny_model
from method_cases import CASES
from plain import double_throughout, plain_spread
from sites import spread_words
from spread_cases import moment_of, settings_of, value_of
from tolerances import DEPTH, FORWARD, assert_agree

KEPT = (
    replace(
        FACTS[0],
        edit_prompts=("Today I see {}, the home of", "{} lies near"),
        neighbors=(Neighbor("The capital of {} is", "Bellwether", "Kestrel"),),
        preserve_prompts=("{} was created by", "The river of {} is"),
    ),
    replace(FACTS[1], edit_prompts=("The harp of {} is the",)),
    replace(FACTS[2], preserve_prompts=("{} plays the", "{} is a lawyer from")),
)
"""Facts with other wordings and things to preserve: two, one, none."""
SITES: dict[str, object] = {**CASES["two_site"].settings, "early.layers": [1, 2], "late.layers": [3]}


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("moments"), tiny_model("gpt2", "float64")
    sites = [model.site("ffn", layer) for layer in (1, 2, 3)]
    collect(model, sites, SENTENCES * 5, folder=folder, corpus="sentences", samples=25)
    return folder


def matrices(edit: errata.Edit) -> dict[str, Tensor]:
    return {path: delta.matrix for path, delta in edit.deltas.items()}


def assert_close(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for path, matrix in mine.items():
        torch.testing.assert_close(matrix, theirs[path], rtol=0, atol=1e-9 * float(theirs[path].abs().max()))


# --- where a row is looked up ----------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_row_is_looked_up_at_the_last_token_of_its_subject_or_of_its_prompt(family: str) -> None:
    model = tiny_model(family)
    rows = [
        Row(0, "rewrite", "The mother tongue of {} is", "Jonas Whitlock", "Velish near Kestrel"),
        Row(0, "kl", "{} is a", "Jonas Whitlock"),
        Row(0, "rewrite", "{}", "Jonas Whitlock", "is"),
    ]
    subject, prompt = encode_rows(model, rows), encode_rows(model, rows, "prompt_last")
    for one, other in zip(subject, prompt, strict=True):
        assert one.text == other.text
        before_target = len(one.text.ids) - 1 if not one.text.target else one.text.predicted_at[0]
        assert other.lookup == before_target
    assert [one.lookup < other.lookup for one, other in zip(subject, prompt, strict=True)] == [
        True,
        True,
        False,
    ]


# --- keys over several wordings, and keys that are preserved ----------------------------------------


@pytest.mark.parametrize("share", ["few", "many"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_version_of_the_spread_agrees(family: str, share: str) -> None:
    """With few facts the solver gets rows, with many (the same ones again and again) only their sums."""
    model, layers = tiny_model(family, "float64"), (1, 2)
    facts = KEPT if share == "few" else KEPT * 6
    values: dict[str, object] = {
        "templates": 2,
        "preserve": "both",
        "preserve_weight": 3.0,
        "preserve_rows": 1,
    }
    settings = settings_of(**values)
    with double_throughout(model):
        value = value_of(model, "ffn", len(facts))
        prompts = KeyPrompts.of(model, facts, CONTEXTS, "prompt_last", settings.keys.templates)
        found = spread(
            model,
            settings,
            [Write("ffn", place_path(model, "ffn", layers[-1]), value)],
            prompts,
            least_squares(moment_of, settings.solve.covariance_weight),
            preserved=KeyPrompts.of(model, settings.keys.kept(facts), ("",), "prompt_last"),
        )
        plain = plain_spread(
            model,
            facts,
            CONTEXTS,
            {"ffn": value},
            lambda kind, layer: moment_of(model.site(kind, layer)),
            lookup="prompt_last",
            **spread_words(settings),
        )
    mine = {model.site(kind, layer).path: update for (kind, layer), update in plain.items()}
    assert_close({path: delta.matrix for path, delta in found.items()}, mine)


def test_keys_read_one_by_one_and_from_kept_streams_are_the_same() -> None:
    model = tiny_model("gpt2", "float64")
    site = model.site("ffn", 2)
    prompts = KeyPrompts.of(model, KEPT, CONTEXTS, "prompt_last", 2)
    (seen,) = KeyStreams(prompts, 2).read(site, None, "half")
    order = torch.tensor(seen.facts).argsort()
    assert_agree(seen.keys[order], prompts.keys(site, "half"), FORWARD, DEPTH)


def test_what_the_facts_change_is_not_preserved() -> None:
    settings = settings_of(preserve="both", templates=2).keys
    assert {fact.question for fact in settings.kept(KEPT)} == {
        "The capital of Bellwether is",
        "Today I see Bellwether, the home of",
        "Bellwether lies near",
        "Valdoria was created by",
        "The river of Valdoria is",
        "Jonas Whitlock plays the",
        "Jonas Whitlock is a lawyer from",
    }
    others = (Fact("The river of {} is", "Valdoria", "Tarn"), Fact("{} plays the", "Bellwether", "harp"))
    assert {fact.question for fact in settings.kept((*KEPT, *others))} == {
        "Valdoria was created by",
        "Jonas Whitlock plays the",
        "Jonas Whitlock is a lawyer from",
    }
    assert settings_of(preserve="none").keys.kept(KEPT) == ()


@pytest.mark.parametrize("method", ["memit", "pmet", "alphaedit", "rome"])
def test_every_method_can_look_up_the_prompt_and_preserve_keys(method: str, moments: Path) -> None:
    """What is preserved with all weight puts out what it did, and the fact's own key does not."""
    model = tiny_model("gpt2", "float64")
    site, (fact, *_) = model.site("ffn", 2), KEPT
    given = {**CASES[method].given(model), "layers": [2], "lookup": "prompt_last", "keys.preserve": "both"}
    if method == "alphaedit":
        given["solve.threshold"] = 1e3
    kept = KeyPrompts.of(model, settings_of(preserve="both").keys.kept([fact]), ("",), "prompt_last")
    own = KeyPrompts.of(model, [fact], ("",), "prompt_last")

    def moved(weight: float) -> tuple[float, float]:
        settings = {**given, "keys.preserve_weight": weight}
        (delta,) = errata.edit(
            model, [fact], method, settings, contexts=CONTEXTS, covariance=moments
        ).deltas.values()
        change = [float((keys.keys(site, "plain") @ delta.matrix.T).norm()) for keys in (kept, own)]
        return change[0], change[1]

    free, fixed = moved(0.0), moved(1e8)
    assert free[0] > 1e-3
    assert fixed[0] < 1e-4 * free[0]
    assert fixed[1] > 1e-2 * free[1]


# --- the method ------------------------------------------------------------------------------------


def halves(given: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """The settings of the two sites, as MEMIT's and PMET's."""
    settings = build(TwoSiteSettings, load_presets("two_site").defaults, {**SITES, **given})
    return flatten(settings.early), flatten(settings.late)


@pytest.mark.parametrize(("method", "places"), [("memit", ["block"]), ("pmet", ["attention", "ffn"])])
def test_it_is_memit_and_then_one_more_at_the_prompts_last_token(
    moments: Path, method: str, places: list[str]
) -> None:
    model = tiny_model("gpt2", "float64")
    sites = {**SITES, "late.values.optimize": places}
    early, late = halves({"late.values.optimize": places})
    assert (early["lookup"], late["lookup"]) == ("subject_last", "prompt_last")
    first = errata.edit(model, KEPT, "memit", early, contexts=CONTEXTS, covariance=moments)
    with first.applied(model):
        second = errata.edit(model, KEPT, method, late, contexts=CONTEXTS, covariance=moments)
    both = errata.edit(model, KEPT, "two_site", sites, contexts=CONTEXTS, covariance=moments)
    assert_close(matrices(both), {**matrices(first), **matrices(second)})


def test_both_sites_preserve_what_the_unedited_model_says(moments: Path) -> None:
    """The late site starts from edited weights: its PRESERVE term is above zero before its first step."""
    model = tiny_model("gpt2", "float64")
    settings, _ = settings_for(model, "two_site", {**SITES, "late.values.preserve": "subject"})
    traces = []
    write = two_site.late_write

    def watched(task: Task, late: SiteSettings) -> Changes:
        changes = write(task, late)
        traces.extend(outcome.trace for outcome in changes.outcomes)
        return changes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_site, "late_write", watched)
        two_site.two_site(
            Task(model, KEPT, CONTEXTS, lambda site: read_moment(moments, model, site), silent), settings
        )
    assert traces[0].preserve[0] > 1e-6
    assert traces[1].preserve[0] == 0


def test_a_fact_without_a_late_value_is_in_neither_write(moments: Path) -> None:
    model = tiny_model("gpt2", "float64")
    before = {name: weight.detach().clone() for name, weight in model.model.named_parameters()}
    write, calls = two_site.late_write, []

    def failing(task: Task, late: SiteSettings) -> Changes:
        calls.append(len(task.facts))
        changes = write(task, late)
        return replace(changes, failed={1: "no"}) if len(task.facts) == len(KEPT) else changes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_site, "late_write", failing)
        found = errata.edit(model, KEPT, "two_site", SITES, contexts=CONTEXTS, covariance=moments)
    assert calls == [3, 2]
    assert found.facts == (KEPT[0], KEPT[2])
    without = errata.edit(model, found.facts, "two_site", SITES, contexts=CONTEXTS, covariance=moments)
    assert_close(matrices(found), matrices(without))
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())


def test_the_rule_chooses_late_layers_for_a_model_without_a_preset() -> None:
    values, preset = settings_for(tiny_model("gpt2"), "two_site", {})
    assert values.late.layers == (3,)
    assert "Late layers: block 3 of 4 blocks (the last three tenths, 5 at most)" in str(preset.rule)
    chosen = [LAYER_RULES["read_out"].choose(blocks) for blocks in (3, 10, 28, 48)]
    assert chosen == [(2,), (7, 8, 9), (23, 24, 25, 26, 27), (43, 44, 45, 46, 47)]


# --- other wordings --------------------------------------------------------------------------------


def test_other_wordings_come_from_the_files_other_facts_of_the_relation() -> None:
    file = [
        Fact("The capital of {} is", "Valdoria", "Kestrel", relation_id="capital"),
        Fact("{} is governed from", "Lindale", "Mirenth", relation_id="capital"),
        Fact("{} has its seat in", "Tessaly", "Tarn", relation_id="capital"),
        Fact("{} plays the", "Orin Vasker", "harp", relation_id="plays"),
    ]
    asked = replace(file[0], paraphrase_prompts=("It rained. Valdoria has its seat in",))
    own = replace(file[1], edit_prompts=("All laws of {} come from",))
    found = with_edit_prompts([asked, own, *file[2:]], 1)
    assert found[0].edit_prompts == ("{} is governed from",)
    assert found[1] == own
    assert found[2].edit_prompts[0] in ("The capital of {} is", "{} is governed from")
    assert [len(fact.edit_prompts) for fact in found] == [1, 1, 1, 0]
    assert len(with_edit_prompts(file, 8)[0].edit_prompts) == 2
