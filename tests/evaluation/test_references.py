"""Consistency by hand: the TF-IDF cosine, and the published files of references."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from errata.errors import SettingsError
from errata.evaluation.references import IDF, SNIPPETS, VOCABULARY, fit_references, load_references
from metric_cases import FACT


class TestConsistency:
    texts: ClassVar = {("home", "Port Avel"): ["red boats", "red sea"], ("home", "Q7"): ["old mills"]}

    def test_the_cosine_by_hand(self) -> None:
        references = fit_references({("home", "Port Avel"): ["red boats"]})
        # One text, so every term has one weight: "red boats" against "red" is 1 / sqrt 2.
        bare = replace(FACT, reference_texts=())
        assert references.similarity(bare, ["red"]) == pytest.approx(1 / math.sqrt(2))
        assert references.similarity(bare, ["red", "boats"]) == pytest.approx(1)
        assert references.similarity(bare, ["nothing known"]) == 0

    def test_the_published_identity_goes_before_the_name(self) -> None:
        references = fit_references(self.texts)
        bare = replace(FACT, reference_texts=())
        assert references.of(bare) == ["red boats", "red sea"]
        assert references.of(replace(bare, target_id="Q7")) == ["old mills"]
        assert references.of(FACT) == FACT.reference_texts
        assert references.similarity(replace(bare, relation_id="other"), ["red"]) is None

    def test_the_published_layout_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        references = fit_references(self.texts)
        references.save(tmp_path / "refs")
        read = load_references(tmp_path / "refs")
        bare = replace(FACT, reference_texts=())
        assert read.texts == references.texts
        assert read.similarity(bare, ["red mills"]) == references.similarity(bare, ["red mills"])

    @pytest.mark.parametrize("name", [SNIPPETS, VOCABULARY, IDF])
    def test_a_missing_file_is_named(self, tmp_path: Path, name: str) -> None:
        fit_references(self.texts).save(tmp_path / "refs")
        (tmp_path / "refs" / name).unlink()
        with pytest.raises(SettingsError, match=name):
            load_references(tmp_path / "refs")

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        fit_references(self.texts).save(tmp_path / "refs")
        (tmp_path / "refs" / IDF).write_bytes(pickle.dumps([1.0]))
        with pytest.raises(SettingsError, match="without unpickling"):
            load_references(tmp_path / "refs")
        np.save(tmp_path / "refs" / IDF, np.array([1.0, None], dtype=object), allow_pickle=True)
        with pytest.raises(SettingsError, match="without unpickling"):
            load_references(tmp_path / "refs")

    def test_files_that_do_not_belong_together_are_refused(self, tmp_path: Path) -> None:
        fit_references(self.texts).save(tmp_path / "refs")
        np.save(tmp_path / "refs" / IDF, np.ones(2), allow_pickle=False)
        with pytest.raises(SettingsError, match="do not belong together"):
            load_references(tmp_path / "refs")

    def test_a_wrong_entry_is_named(self, tmp_path: Path) -> None:
        fit_references(self.texts).save(tmp_path / "refs")
        (tmp_path / "refs" / SNIPPETS).write_text(json.dumps([{"relation_id": "home"}]))
        with pytest.raises(SettingsError, match="entry 0"):
            load_references(tmp_path / "refs")
