"""The leverage profile: restated token by token; the blocks it names; its command."""

import json
from pathlib import Path
from statistics import median

import pytest
import torch

import errata
from cli_world import run, the_world
from errata.analysis.leverage import BlockLeverage, LeverageProfile, leverage_profile
from errata.errors import CovarianceMissing
from errata.moments.folder import read_moment
from errata.passes.prompts import encode_rows, pad, rewrite_rows
from families import FACTS, tiny_model
from moments_cases import Moments


def test_the_profile_is_the_formula(moments: Moments) -> None:
    model = tiny_model("gpt2", "float64")
    folder = moments(model)
    profile = leverage_profile(model, FACTS, folder)
    assert [one.layer for one in profile.blocks] == list(range(model.layers))
    rows = encode_rows(model, rewrite_rows(FACTS, ("",)), "subject_last")
    for one in profile.blocks:
        site = model.site("ffn", one.layer)
        inverse = torch.linalg.inv(read_moment(folder, model, site))
        subject, others, last = list[float](), list[float](), list[float]()
        for row in rows:
            tokens = pad([row.text.ids], model)
            end = len(row.text.ids) - len(row.text.target)
            for place in range(end + 1):
                at = torch.tensor([place])
                key = model.values_at(tokens, at, inputs_of=[site.path])[site.path][0].double()
                leverage = float(key @ inverse @ key) / site.d_in
                if place == row.lookup:
                    subject.append(leverage)
                elif place > 0:
                    others.append(leverage)
                if place == end:
                    last.append(leverage)
        assert one.subject == pytest.approx(median(subject), rel=1e-6)
        assert one.others == pytest.approx(median(others), rel=1e-6)
        assert one.last == pytest.approx(median(last), rel=1e-6)


def test_it_names_the_consecutive_blocks_that_stand_out_most() -> None:
    ratios = [1, 2, 9, 8, 7, 1, 1, 1]
    blocks = tuple(BlockLeverage(layer, float(ratio), 1.0, 1.0) for layer, ratio in enumerate(ratios))
    profile = LeverageProfile("some", 1, blocks)
    assert profile.highest(3) == (2, 3, 4)
    assert profile.highest() == (1, 2, 3, 4)
    assert LeverageProfile("some", 1, blocks[:2]).highest() == (1,)


def test_missing_moments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CovarianceMissing):
        leverage_profile(tiny_model("gpt2"), FACTS, tmp_path)


def test_the_command_prints_and_writes_it(tmp_path: Path, moments: Moments) -> None:
    world = the_world()
    model = errata.load(world.model)
    words = ["locate", world.model, "--facts", world.facts, "--leverage", "--covariance", moments(model)]
    done = run(*words, "--json", "--output", tmp_path / "profile")
    assert done.exit_code == 0, done.output
    about = json.loads(done.stdout)
    assert len(about["blocks"]) == model.layers
    kept = json.loads((tmp_path / "profile" / "leverage.json").read_text())
    assert kept["blocks"] == about["blocks"]
    assert "<svg" in (tmp_path / "profile" / "leverage.svg").read_text()
    assert "Ratio" in run(*words).stdout
