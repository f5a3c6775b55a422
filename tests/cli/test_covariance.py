"""`errata covariance`: measured into a folder or the cache, shown, imported."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import errata
from cli_world import World, answer, failed, flat, run
from errata.methods import method_named, settings_for
from errata.settings import DEFAULT_METHOD
from families import SENTENCES


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.txt"
    file.write_text("\n".join(SENTENCES), encoding="utf-8")
    return file


def test_show_tells_what_was_measured(world: World) -> None:
    said = flat(run("covariance", "show", world.moments).stdout)
    assert "in float32, over corpus.txt" in said
    assert "transformer.h.2.mlp.c_proj 128" in said


def test_collect_goes_to_the_cache_where_show_lists_it(world: World, corpus: Path, cache: Path) -> None:
    words = ("covariance", "collect", world.model, "--layers", "3", "--kind", "attention", "--corpus", corpus)
    told: Any = answer(*words)
    assert [row["site"] for row in told["sites"]] == ["transformer.h.3.attn.c_proj"]
    assert Path(told["folder"]).parent == cache / "covariance"
    listed: Any = answer("covariance", "show")
    assert [row["sites"] for row in listed["folders"]] == [1]
    assert Path(told["folder"]).name in flat(run("covariance", "show").stdout)


def test_collect_takes_the_layers_of_the_settings_by_default(
    world: World, corpus: Path, tmp_path: Path
) -> None:
    """Of those of the default method."""
    told: Any = answer("covariance", "collect", world.model, "--corpus", corpus, "--output", tmp_path / "out")
    model = errata.load(world.model)
    layers = method_named(DEFAULT_METHOD).layers(settings_for(model, DEFAULT_METHOD, {})[0])
    assert [row["site"] for row in told["sites"]] == [model.site("ffn", layer).path for layer in layers]


def test_show_of_an_empty_cache() -> None:
    assert "none yet" in run("covariance", "show").stdout


def test_import_of_a_published_file(world: World, tmp_path: Path) -> None:
    moment = load_file(world.moments / "transformer.h.1.mlp.c_proj.safetensors")["second_moment"].numpy()
    file = tmp_path / "transformer.h.1.mlp.c_proj_float32_mom2_100000.npz"
    np.savez(file, **{"mom2.mom2": moment * 50, "mom2.count": np.array(50)})
    told: Any = answer("covariance", "import", file, "--model", world.model, "--layer", "1")
    stored = load_file(Path(told["folder"]) / "transformer.h.1.mlp.c_proj.safetensors")
    assert np.allclose(stored["second_moment"].numpy(), moment, rtol=1e-6)
    assert told["sites"][0]["count"] == 50


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--layers", "5-3"), "runs backwards"),
        (("--layers", "9"), "blocks 0 to 3"),
        (("--corpus", "none.txt"), "no corpus file none.txt"),
        (("--samples", "0"), "at least 1"),
    ],
)
def test_wrong_words_for_collect(world: World, words: tuple[str, ...], expected: str) -> None:
    assert expected in failed("covariance", "collect", world.model, *words)


def test_collect_does_not_replace(world: World, corpus: Path) -> None:
    words = ("--layers", "1", "--corpus", corpus, "--output", world.moments)
    assert "exists already" in failed("covariance", "collect", world.model, *words)


def test_import_of_nothing(world: World, tmp_path: Path) -> None:
    message = failed("covariance", "import", tmp_path / "none.npz", "--model", world.model, "--layer", "1")
    assert "There is no file" in message
