"""Perplexity by hand, and files of texts."""

import json
import math
from pathlib import Path

import pytest
import torch

from errata.errors import SettingsError
from errata.evaluation.evaluate import evaluate
from errata.evaluation.perplexity import measure_texts, read_texts, text_perplexity
from errata.models.model import EditableModel
from families import SENTENCES, tiny_model
from metric_cases import FACT


@pytest.fixture
def gpt2() -> EditableModel:
    return tiny_model("gpt2", "float64")


class TestPerplexity:
    def test_both_counts_by_hand(self, gpt2: EditableModel) -> None:
        (text,) = measure_texts(gpt2, SENTENCES[:1])
        ids = [int(token) for token in gpt2.tokenizer(SENTENCES[0])["input_ids"]]
        with torch.no_grad():
            log_p = gpt2.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        total = sum(float(log_p[place, token]) for place, token in enumerate(ids[1:]))
        assert text.tokens == len(ids)
        assert text.perplexity == pytest.approx(math.exp(-total / len(ids)))
        assert text.textbook_perplexity == pytest.approx(math.exp(-total / (len(ids) - 1)))

    def test_the_score_is_the_mean_over_texts_with_its_interval(self, gpt2: EditableModel) -> None:
        results = evaluate(gpt2, [FACT], texts=SENTENCES)
        found = results.scores()["me_ppl_50"]
        assert found is not None
        assert found.count == len(SENTENCES)
        assert found.mean == pytest.approx(text_perplexity(gpt2, SENTENCES))
        assert found.margin is not None
        assert results.scores("before")["me_ppl_50"] is None

    def test_files_of_texts(self, tmp_path: Path) -> None:
        published, lines = tmp_path / "me_ppl_50.json", tmp_path / "texts.txt"
        published.write_text(json.dumps([{"Corpus": "C4", "Text": " one two"}, "three"]))
        lines.write_text("one two\n\nthree\n")
        assert read_texts(published) == [" one two", "three"]
        assert read_texts(lines) == ["one two", "three"]

    @pytest.mark.parametrize("content", ["[]", "[{}]", "{", '{"a": 1}'])
    def test_a_file_of_something_else(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(SettingsError, match=r"x\.json"):
            read_texts(tmp_path / "x.json")

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="no file of texts"):
            read_texts(tmp_path / "x.json")
