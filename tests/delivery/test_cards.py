"""The card beside an adapter."""

from dataclasses import replace
from pathlib import Path

import pytest

from edit_cases import fresh
from errata.delivery.exchange import to_peft
from errata.facts.fact import Fact
from exchange_cases import thin_edit

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # PEFT asks for it


def test_the_card_tells_facts_scores_and_how_to_load_and_remove(tmp_path: Path) -> None:
    model = fresh()
    odd = Fact("The | capital of {} is", "Valdoria", "<b>Kestrel</b>", "Mirenth")
    measured = {"before.efficacy_success": 0.0, "after.efficacy_success": 1.0}
    found = replace(thin_edit(model), facts=(odd,), measured=measured)
    to_peft(found, tmp_path / "adapter", model)
    text = (tmp_path / "adapter" / "README.md").read_text()
    assert "| The \\| capital of Valdoria is | &lt;b>Kestrel&lt;/b> | Mirenth |" in text
    assert "| Efficacy, success | 0.0 | 100.0 |" in text
    for words in ("library_name: peft", "PeftModel.from_pretrained", "model.unload()", "written by pmet"):
        assert words in text
