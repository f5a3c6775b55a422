"""Records of facts as files hold them, one of each kind, and files of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

# One record of each kind, in the shape that was published, with a world of its own.
OWN: dict[str, Any] = {
    "prompt": "The harbour of {} lies on the",
    "subject": "Port Avel",
    "target_new": "North Sea",
    "target_true": "Adriatic",
    "paraphrase_prompts": ["Ships bound for {} cross the"],
    "neighborhood_prompts": [
        "The harbour of Duskwell lies on the",
        {"prompt": "Tarn lies on the", "target": "Po"},
    ],
    "neighbors": [{"prompt": "The harbour of {} lies on the", "subject": "Duskwell", "target": "Adriatic"}],
    "generation_prompts": ["From the quays of {} you see"],
    "relation_id": "sea",
    "case_id": "a-7",
    "same_subject_prompts": [{"prompt": "The mayor of {} is", "target": "Orin Vasker"}],
    "unrelated_prompts": [{"prompt": "Copper is a", "target": "metal"}],
    "attribute_prompts": ["The harbour of Hull lies on the"],
    "reference_texts": ["Hull is a harbour on the North Sea."],
    "preserve_prompts": ["The mayor of Port Avel is called", "The bridge of {} was built by"],
    "edit_prompts": ["The quays of Port Avel are on the"],
}


COUNTERFACT: dict[str, Any] = {
    "case_id": 31,
    "pararel_idx": 4,
    "requested_rewrite": {
        "prompt": "{} plays the",
        "relation_id": "P1303",
        "target_new": {"str": "violin", "id": "Q1"},
        "target_true": {"str": "harp", "id": "Q2"},
        "subject": "Orin Vasker",
    },
    "paraphrase_prompts": ["It rained. Orin Vasker is a master of the"],
    "neighborhood_prompts": ["Petra Lund plays the", "Hale Corvin plays the"],
    "attribute_prompts": ["Mira Tolland plays the"],
    "generation_prompts": ["Orin Vasker studied the"],
    "neighborhood_samples": [
        {"subject": "Petra Lund", "prompt": "{} plays the"},
        {"subject": "Hale Corvin", "prompt": "{} plays the"},
    ],
}


SUBSET: dict[str, Any] = {
    "prompt": "Zentro, created by",
    "target_new": "Lumbra",
    "ground_truth": "Bellwether",
    "portability": {},
    "locality": {"neighborhood": {"prompt": ["Zentro II is a product of"], "ground_truth": ["Bellwether"]}},
    "subject": "Zentro",
    "rephrase_prompt": ["It was late. Zentro is a product of"],
    "neighborhood_samples": [{"subject": "Zentrino", "prompt": "{}, created by"}],
    "case_id": 5,
}


ZSRE: dict[str, Any] = {
    "subject": "Tarn Bridge",
    "src": "Who was the designer of Tarn Bridge?",
    "pred": "Edda Rowe",
    "rephrase": "Which engineer drew up the plans of Tarn Bridge?",
    "alt": "Jonas Whitlock",
    "answers": ["Hale Corvin", "H. Corvin"],
    "loc": "nq question: when was the steam engine built",
    "loc_ans": "1712",
    "cond": "Edda Rowe >> Jonas Whitlock || Who was the designer of Tarn Bridge?",
    "neighborhood_samples": [{"subject": "steam engine", "prompt": "nq question: when was the {} built?"}],
}


def write(path: Path, *records: object) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def own(**changes: object) -> dict[str, object]:
    """A short row of Errata's own, changed; a field set to `...` is left out."""
    row: dict[str, object] = {
        "prompt": "The capital of {} is",
        "subject": "Valdoria",
        "target_new": "Kestrel",
    }
    return {name: value for name, value in (row | changes).items() if value is not ...}


# Rows are drawn, not facts: the type checks of the tests use `random`, which hypothesis forbids where it draws.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


filled = texts.map(lambda text: f"{text}|").map(str.strip)


subjects = filled.filter(lambda text: "{}" not in text)


templates = st.tuples(subjects, texts).map("{}".join).filter(lambda text: text.count("{}") == 1)


neighbors = st.fixed_dictionaries({"prompt": templates, "subject": subjects, "target": filled})
