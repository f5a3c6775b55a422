"""Records of every kind that `read_facts` knows, in every container."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from errata.facts.fact import FIELDS, Fact
from errata.facts.probes import Neighbor, Probe
from errata.facts.reading import check_facts, read_facts
from fact_rows import (
    COUNTERFACT,
    OWN,
    SUBSET,
    ZSRE,
    own,
    write,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.jsonl"


def test_own_rows(path: Path):
    (fact,) = read_facts(write(path, OWN))
    assert fact.case_id == "a-7"
    assert fact.neighborhood == (
        Probe("The harbour of Duskwell lies on the", "Adriatic"),
        Probe("Tarn lies on the", "Po"),
    )
    assert fact.neighbors == (Neighbor("The harbour of {} lies on the", "Duskwell", "Adriatic"),)
    assert fact.reference_texts == ("Hull is a harbour on the North Sea.",)


def test_counterfact_records(path: Path):
    (fact,) = read_facts(write(path, COUNTERFACT))
    assert fact == Fact(
        prompt="{} plays the",
        subject="Orin Vasker",
        target_new="violin",
        target_true="harp",
        target_id="Q1",
        paraphrase_prompts=("It rained. Orin Vasker is a master of the",),
        neighborhood_prompts=("Petra Lund plays the", "Hale Corvin plays the"),
        neighbors=(
            Neighbor("{} plays the", "Petra Lund", "harp"),
            Neighbor("{} plays the", "Hale Corvin", "harp"),
        ),
        generation_prompts=("Orin Vasker studied the",),
        relation_id="P1303",
        case_id=31,
        attribute_prompts=("Mira Tolland plays the",),
    )


def test_counterfact_records_with_more_fields(path: Path):
    more = {
        name: OWN[name]
        for name in ("same_subject_prompts", "unrelated_prompts", "reference_texts", "neighbors")
    }
    (fact,) = read_facts(write(path, COUNTERFACT | more))
    assert fact.same_subject_prompts == (Probe("The mayor of Orin Vasker is", "Orin Vasker"),)
    assert fact.unrelated_prompts == (Probe("Copper is a", "metal"),)
    assert fact.neighbors == (Neighbor("The harbour of {} lies on the", "Duskwell", "Adriatic"),)


def test_a_counterfact_template_may_name_its_subject_too(path: Path):
    rewrite = COUNTERFACT["requested_rewrite"] | {"prompt": "{}, not the other Orin Vasker, plays the"}
    (fact,) = read_facts(write(path, COUNTERFACT | {"requested_rewrite": rewrite}))
    assert fact.subject_span == (0, 11)


def test_neighbor_assisted_records(path: Path):
    (fact,) = read_facts(write(path, SUBSET))
    assert fact == Fact(
        prompt="{}, created by",
        subject="Zentro",
        target_new="Lumbra",
        target_true="Bellwether",
        paraphrase_prompts=("It was late. Zentro is a product of",),
        neighborhood_prompts=(Probe("Zentro II is a product of", "Bellwether"),),
        neighbors=(Neighbor("{}, created by", "Zentrino", "Bellwether"),),
        case_id=5,
    )


def test_zsre_records(path: Path):
    _, fact = read_facts(write(path, ZSRE | {"src": "Who built Tarn Bridge?"}, ZSRE))
    assert fact == Fact(
        prompt="Who was the designer of {}?",
        subject="Tarn Bridge",
        target_new="Hale Corvin",
        paraphrase_prompts=("Which engineer drew up the plans of Tarn Bridge?",),
        neighborhood_prompts=(Probe("nq question: when was the steam engine built?", "1712"),),
        neighbors=(Neighbor("nq question: when was the {} built?", "steam engine", "1712"),),
        case_id=1,
    )


def test_a_zsre_record_may_lack_what_is_not_needed(path: Path):
    needed = {name: ZSRE[name] for name in ("subject", "src", "answers")}
    (fact,) = read_facts(write(path, needed))
    assert fact == Fact("Who was the designer of {}?", "Tarn Bridge", "Hale Corvin", case_id=0)


@pytest.mark.parametrize(
    "record", [OWN, COUNTERFACT, SUBSET, ZSRE], ids=["own", "counterfact", "subset", "zsre"]
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_kind_reads_from_every_container(path: Path, record: dict[str, Any], packed: bool):
    contents = [
        json.dumps(record),
        "\ufeff" + json.dumps(record) + "\r\n\r\n",
        json.dumps(record, indent=2),
        json.dumps([record]),
        "\n" + json.dumps([record], indent=1, ensure_ascii=False) + "\n\n",
    ]
    read: list[list[Fact]] = []
    for content in contents:
        data = content.encode("utf-8")
        path.write_bytes(gzip.compress(data) if packed else data)
        read.append(read_facts(path))
    assert len(read[0]) == 1
    assert all(facts == read[0] for facts in read)


def test_kinds_may_be_mixed_and_unicode_line_ends_are_no_line_ends(path: Path):
    odd = json.dumps(own(paraphrase_prompts=["a\u2028b\x85c"]), ensure_ascii=False)
    read = read_facts(write(path, odd, COUNTERFACT, ZSRE, SUBSET))
    assert [fact.subject for fact in read] == ["Valdoria", "Orin Vasker", "Tarn Bridge", "Zentro"]
    assert read[0].paraphrase_prompts == ("a\u2028b\x85c",)


def test_the_examples_of_the_documentation_read(path: Path):
    page = Path(__file__).resolve().parents[2] / "docs" / "facts.md"
    examples = [
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]
    assert len(examples) == 5
    for example in examples:
        assert check_facts(write(path, example)) == []
    assert set(examples[1]) == set(FIELDS)
