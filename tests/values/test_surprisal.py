"""How surprised a model is by targets, against a computation by hand."""

from pathlib import Path

import pytest
import torch

from errata.facts.fact import Fact
from errata.values.surprisal import measure_targets
from families import CONTEXTS, FACTS, tiny_model
from plain import plain_row, run
from strategy_cases import collect_moments, stepped


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect_moments(tmp_path_factory.mktemp("moments"))


def test_targets_are_measured_as_one_would_by_hand(moments: Path) -> None:
    model = tiny_model("gpt2", "float64")
    easy = (Fact("Today I see {}", "Valdoria", "was"), Fact("{}", "Jonas Whitlock", "is"))
    with stepped(moments, facts=easy, iterations=4, stop="never").applied(model):
        found = measure_targets(model, (*FACTS, *easy), CONTEXTS)
        for index, fact in enumerate((*FACTS, *easy)):
            surprisals, on_top = [], True
            for context in CONTEXTS:
                row = plain_row(model, context, fact.prompt, fact.subject, fact.target_new)
                with torch.no_grad():
                    log_p = run(model, row.ids).log_softmax(dim=-1)[-len(row.target) :]
                surprisals.append(-float(log_p[range(len(row.target)), row.target].mean()))
                on_top = on_top and log_p.argmax(dim=-1).tolist() == row.target
            assert float(found.nll[index]) == pytest.approx(sum(surprisals) / len(surprisals), rel=1e-9)
            assert bool(found.on_top[index]) == on_top
    assert found.on_top.any()
    assert not found.on_top.all()
