"""Stacks: edits in order, each taken out again; contradictions are found before anything is written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edit_cases import fresh, random_edit, weights_of
from errata.edits.deltas import Delta
from errata.edits.edit import Edit
from errata.edits.stacks import Stack, new_stack, open_stack
from errata.errors import EditError, FactError, SettingsError, WrongModel
from errata.facts.fact import Fact
from errata.models.model import EditableModel
from errata.passes.prompts import Lookup
from errata.planning.plan import edit
from errata.planning.request import Words
from errata.solve.keys import KeyPrompts
from families import CONTEXTS, FACTS, SETTINGS, tiny_model
from method_cases import at
from moments_cases import Moments
from tiny import fresh_model
from tolerances import assert_agree


def of_facts(model: EditableModel, seed: int, *facts: Fact) -> Edit:
    return replace(random_edit(model, seed), facts=facts)


def three(model: EditableModel, folder: Path) -> Stack:
    stack = new_stack(folder, model)
    for number, name in enumerate(("one", "two", "three")):
        stack = stack.add(name, of_facts(model, number, FACTS[number]))
    return stack


def test_edits_are_kept_in_order_and_read_again(tmp_path: Path) -> None:
    model = fresh()
    stack = three(model, tmp_path / "stack")
    again = open_stack(tmp_path / "stack")
    assert again == stack
    assert again.names == ("one", "two", "three")
    assert again.edit("two").facts == (FACTS[1],)


def test_each_can_be_taken_out_and_the_rest_still_applies(tmp_path: Path) -> None:
    model = fresh()
    before = weights_of(model)
    stack = three(model, tmp_path / "stack").remove("two")
    assert open_stack(tmp_path / "stack").names == ("one", "three")
    assert not (tmp_path / "stack" / "edits" / "two").exists()
    with stack.applied(model):
        inside = weights_of(model)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(model).items())
    for number in (0, 2):
        of_facts(fresh(), number).apply(model)
    assert all(torch.equal(weight, inside[name]) for name, weight in weights_of(model).items())


def test_all_edits_as_one_make_the_same_weights(tmp_path: Path) -> None:
    model = fresh()
    stack = three(model, tmp_path / "stack")
    with stack.applied(model):
        wanted = weights_of(model)
    merged = stack.merged()
    assert merged.facts == FACTS[:3]
    with merged.applied(model):
        for name, weight in weights_of(model).items():
            assert_agree(weight, wanted[name], 32)


SAME = (
    ("another answer", replace(FACTS[0], target_new="Lindale"), True),
    ("the subject written into the prompt", Fact("The capital of Valdoria is", "Valdoria", "Lindale"), True),
    ("other case and spaces", Fact("the  capital of {} is", "valdoria", "Lindale"), True),
    ("the same answer", FACTS[0], False),
    ("another subject", replace(FACTS[0], subject="Velmark", target_new="Lindale"), False),
    ("another question", Fact("The anthem of {} is", "Valdoria", "Lindale"), False),
)


@pytest.mark.parametrize(("what", "fact", "contradicts"), SAME, ids=[row[0] for row in SAME])
def test_contradictions_are_found_by_subject_and_prompt(
    what: str, fact: Fact, contradicts: bool, tmp_path: Path
) -> None:
    model = fresh()
    stack = three(model, tmp_path / "stack")
    index = (tmp_path / "stack" / "stack.json").read_bytes()
    if not contradicts:
        assert stack.add("four", of_facts(model, 4, fact)).names[-1] == "four"
        return
    with pytest.raises(FactError, match=r"conflicting targets: 'Kestrel' \(edit 'one'\) and 'Lindale'"):
        stack.add("four", of_facts(model, 4, FACTS[3], fact))
    assert (tmp_path / "stack" / "stack.json").read_bytes() == index
    assert not (tmp_path / "stack" / "edits" / "four").exists()


def test_the_same_relation_of_a_subject_contradicts_too(tmp_path: Path) -> None:
    model = fresh()
    stack = new_stack(tmp_path / "stack", model)
    stack = stack.add("one", of_facts(model, 0, replace(FACTS[0], relation_id="P36")))
    asked = Fact("The seat of government of {} is", "Valdoria", "Lindale", relation_id="P36")
    assert [conflict.earlier_source for conflict in stack.conflicts([asked])] == ["one"]


@pytest.mark.parametrize("name", ["", "../out", "a/b", ".hidden", "one"])
def test_names_are_plain_words_and_not_taken(name: str, tmp_path: Path) -> None:
    model = fresh()
    with pytest.raises(SettingsError):
        three(model, tmp_path / "stack").add(name, of_facts(model, 5))


def test_edits_of_other_weights_and_unknown_names_are_refused(tmp_path: Path) -> None:
    stack = three(fresh(), tmp_path / "stack")
    other = fresh_model(other_weights=True)
    with pytest.raises(WrongModel):
        stack.add("four", of_facts(other, 4))
    with pytest.raises(WrongModel), stack.applied(other):
        pass
    with pytest.raises(SettingsError, match="has no edit 'four'"):
        stack.remove("four")


def test_what_a_killed_run_left_does_not_count(tmp_path: Path) -> None:
    model = fresh()
    stack = three(model, tmp_path / "stack")
    of_facts(model, 9).save(tmp_path / "stack" / "edits" / "four")
    assert open_stack(tmp_path / "stack") == stack
    assert stack.add("four", of_facts(model, 4, FACTS[3])).edit("four").facts == (FACTS[3],)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9}', '{"format": 1}'])
def test_a_damaged_index_is_refused(text: str, tmp_path: Path) -> None:
    three(fresh(), tmp_path / "stack")
    (tmp_path / "stack" / "stack.json").write_text(text)
    with pytest.raises(EditError, match=r"stack\.json"):
        open_stack(tmp_path / "stack")


def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    three(fresh(), tmp_path / "stack")
    file = tmp_path / "stack" / "stack.json"
    about = json.loads(file.read_text())
    about["edits"][0]["name"] = "../edits/one"
    file.write_text(json.dumps(about))
    with pytest.raises(EditError, match="Restore it"):
        open_stack(tmp_path / "stack")


@pytest.mark.parametrize(
    ("method", "more", "layer", "lookup"),
    [
        ("memit", {}, 1, "subject_last"),
        ("pmet", {}, 1, "subject_last"),
        ("two_site", {"late.layers": [3], "late.solve.covariance_weight": 1.0}, 3, "prompt_last"),
    ],
)
def test_a_later_edit_knows_the_keys_of_the_earlier_ones(
    method: str,
    more: dict[str, object],
    layer: int,
    lookup: Lookup,
    moments: Moments,
    tmp_path: Path,
) -> None:
    """What an edit changes at the earlier facts' keys is less when it knows them."""
    model = tiny_model("gpt2")
    own: dict[str, object] = {**SETTINGS, "solve.covariance_weight": 1.0, "keys.average": "half"}
    given, folder = {**(at("early.", own) if method == "two_site" else own), **more}, moments(model)
    before = weights_of(model)

    def stacked(name: str, hold: bool) -> Stack:
        first = new_stack(tmp_path / name, model)
        words: Words = {"contexts": CONTEXTS, "covariance": folder, "hold": hold}
        for name, facts in (("a", FACTS[:2]), ("b", FACTS[2:])):
            made = edit(model, facts, method, given, stack=first, **words)
            first = first.add(name, made, first.names)
        return first

    def moved(stack: Stack) -> float:
        site = model.site("ffn", layer)
        keys = KeyPrompts.of(model, FACTS[:2], CONTEXTS, lookup).keys(site, "half")
        delta = stack.edit("b").deltas[site.path]
        return float((keys.double() @ delta.matrix.double().T).norm())

    known, unknown = stacked("known", True), stacked("unknown", False)
    assert 0 < moved(known) < 0.7 * moved(unknown)
    assert known.entries[1].on_top_of == ("a",)
    assert known.leaning_on("a") == ("b",)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(model).items())
    with known.remove("a").applied(model):
        pass


def test_a_contradiction_is_found_before_anything_is_computed(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    stack = new_stack(tmp_path / "stack", model).add("one", of_facts(model, 0, FACTS[0]))
    with pytest.raises(FactError, match="contradict"):
        edit(model, [replace(FACTS[0], target_new="Lindale")], "pmet", stack=stack)


def test_alphaedit_always_holds(moments: Moments, tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    stack = new_stack(tmp_path / "stack", model)
    given = {**SETTINGS, "solve.threshold": 0.1, "solve.ridge": 1.0}
    del given["solve.covariance_weight"]
    with pytest.raises(SettingsError, match="always knows"):
        edit(model, FACTS[:1], "alphaedit", given, contexts=CONTEXTS, stack=stack, hold=False)


def test_deltas_of_a_stack_may_be_of_different_weights(tmp_path: Path) -> None:
    model = fresh()
    site = model.site("ffn", 0)
    alone = replace(
        random_edit(model, 7), deltas={site.path: Delta(None, None, torch.ones(site.matrix.shape))}, facts=()
    )
    merged = three(model, tmp_path / "stack").add("other", alone).merged()
    assert torch.equal(merged.deltas[site.path].matrix, torch.ones(site.matrix.shape))
