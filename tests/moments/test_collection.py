"""Collecting into folders and into the default store: resumed, keyed, never half written."""

import subprocess
import sys
import time
from dataclasses import fields
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from errata import errors
from errata.models.model import EditableModel, Site
from errata.moments import collection as covariance
from errata.moments.collection import (
    CovarianceRecipe,
    LimitWords,
    collect,
    default_folder,
    default_recipe,
    ensure,
    recipe_texts,
)
from errata.moments.corpora import WIKIPEDIA
from errata.moments.folder import moments_of, read_moment, write_moment
from errata.moments.key_sums import Limits, measure
from errata.moments.statements import short_statements
from errata.moments.written import STARTS, written_texts
from tiny import TEXTS, fresh_model


@pytest.fixture
def model() -> EditableModel:
    return fresh_model()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    (tmp_path / "corpus.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return str(tmp_path / "corpus.txt")


def sites_of(model: EditableModel) -> list[Site]:
    return [model.site("ffn", 1), model.site("ffn", 2)]


class Interrupter:
    """Presses Ctrl-C after so many calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_every_site_gets_a_file_that_says_how_it_was_measured(model: EditableModel, tmp_path: Path) -> None:
    sites = sites_of(model)
    paths = collect(model, sites, TEXTS, folder=tmp_path / "out", corpus="texts", samples=50, max_length=1000)
    assert [path.name for path in paths] == [f"{site.path}.safetensors" for site in sites]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)
    expected = measure(model, sites, TEXTS, Limits(samples=50))
    for site, stored in zip(sites, moments_of(tmp_path / "out"), strict=True):
        assert stored.count == expected.tokens
        assert stored.metadata["corpus"] == "texts"
        assert stored.metadata["samples"] == stored.metadata["texts"] == "50"
        assert stored.metadata["max_length"] == "96"
        assert stored.metadata["dtype"] == "float32"
        assert stored.metadata["texts_sha256"] == expected.digest
        moment = read_moment(tmp_path / "out", model, site)
        assert torch.equal(moment, expected.moment(site.path).float().double())


@pytest.mark.parametrize("calls", [1, 9, 20])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    model: EditableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    monkeypatch.setattr(covariance, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(covariance, "SAVE_SHARE", 1e9)

    def run(folder: str, on_progress: object) -> None:
        collect(
            model,
            sites_of(model),
            TEXTS,
            folder=tmp_path / folder,
            corpus="texts",
            samples=30,
            batch_tokens=60,
            on_progress=on_progress,
        )

    whole = Interrupter(-1)
    run("whole", whole)
    with pytest.raises(KeyboardInterrupt):
        run("parts", Interrupter(calls))
    partial = list((tmp_path / "parts").glob("*.partial")) if (tmp_path / "parts").exists() else []
    assert len(partial) == (1 if calls > 5 else 0)
    assert not list(tmp_path.glob("parts/*.safetensors"))
    rest = Interrupter(-1)
    run("parts", rest)
    for site in sites_of(model):
        one = load_file(tmp_path / "whole" / f"{site.path}.safetensors")
        two = load_file(tmp_path / "parts" / f"{site.path}.safetensors")
        assert torch.equal(one["second_moment"], two["second_moment"])
        assert torch.equal(one["count"], two["count"])
    assert len(list((tmp_path / "parts").iterdir())) == 2
    if partial:
        assert rest.left > whole.left, "the second run did everything again"


@pytest.mark.slow
def test_a_killed_run_goes_on(model: EditableModel, tmp_path: Path) -> None:
    program = f"""
import sys, time, torch
torch.set_num_threads(1)  # as here: how a sum is split between threads decides its last bits
sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
from tiny import TEXTS, fresh_model
from errata.moments import collection as covariance
covariance.SAVE_SECONDS, covariance.SAVE_SHARE = 0.0, 1e9
model = fresh_model()
covariance.collect(model, [model.site("ffn", 1)], TEXTS, folder={str(tmp_path)!r}, corpus="t", samples=30,
                   batch_tokens=60, on_progress=lambda stage, done, total: time.sleep(0.05))
"""
    killed = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("*.partial")) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert list(tmp_path.glob("*.partial"))
    assert not list(tmp_path.glob("*.safetensors"))
    site = model.site("ffn", 1)
    rest = Interrupter(-1)
    recipe = {"corpus": "t", "samples": 30, "batch_tokens": 60}
    collect(model, [site], TEXTS, folder=tmp_path, on_progress=rest, **recipe)
    whole = Interrupter(-1)
    collect(model, [site], TEXTS, folder=tmp_path / "whole", on_progress=whole, **recipe)
    assert torch.equal(read_moment(tmp_path, model, site), read_moment(tmp_path / "whole", model, site))
    assert rest.left > whole.left


def interrupted(model: EditableModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(covariance, "SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        collect(
            model,
            sites_of(model),
            TEXTS,
            folder=folder,
            corpus="texts",
            samples=30,
            batch_tokens=60,
            on_progress=Interrupter(12),
        )
    (partial,) = folder.glob("*.partial")
    return partial


def test_another_recipe_does_not_go_on(
    model: EditableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = interrupted(model, tmp_path, monkeypatch)
    with pytest.raises(errors.CovarianceMismatch) as caught:
        collect(model, sites_of(model), TEXTS, folder=tmp_path, corpus="other", samples=29, batch_tokens=60)
    message = str(caught.value)
    assert "corpus was texts, is now other" in message
    assert "samples was 30, is now 29" in message
    assert f"remove {partial.name} to start over" in message


def test_other_texts_do_not_go_on(
    model: EditableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(model, tmp_path, monkeypatch)
    with pytest.raises(errors.CovarianceMismatch, match=r"no longer what .* texts differ.*\.partial file"):
        collect(
            model, sites_of(model), TEXTS[::-1], folder=tmp_path, corpus="texts", samples=30, batch_tokens=60
        )


def test_a_damaged_partial_is_named(
    model: EditableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = interrupted(model, tmp_path, monkeypatch)
    partial.write_bytes(partial.read_bytes()[:100])
    with pytest.raises(
        errors.CovarianceError, match=r"\.partial, left by an unfinished run, cannot be read.*start over"
    ):
        collect(model, sites_of(model), TEXTS, folder=tmp_path, corpus="texts", samples=30, batch_tokens=60)


def test_what_is_there_is_not_replaced_unasked(model: EditableModel, tmp_path: Path) -> None:
    collect(model, sites_of(model), TEXTS, folder=tmp_path, corpus="texts", samples=5)
    with pytest.raises(errors.OutputExists, match=r"c_proj\.safetensors exists already, and 1 more"):
        collect(model, sites_of(model), TEXTS, folder=tmp_path, corpus="texts", samples=6)
    collect(model, sites_of(model), TEXTS, folder=tmp_path, corpus="texts", samples=6, replace=True)
    assert {stored.metadata["samples"] for stored in moments_of(tmp_path)} == {"6"}


def test_the_default_store_measures_what_is_missing(model: EditableModel, corpus: str, cache: Path) -> None:
    recipe = CovarianceRecipe(corpus=corpus, samples=30)
    stages: list[str] = []

    def note(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    folder = ensure(model, [model.site("ffn", 1)], recipe, note)
    assert folder == default_folder(model, recipe)
    assert folder.parent == cache / "covariance"
    assert folder.name.startswith("tiny-corpus.txt-30x96-float32-")
    assert set(stages) == {"covariance"}
    first = (folder / "transformer.h.1.mlp.c_proj.safetensors").stat().st_mtime_ns
    ensure(model, sites_of(model), recipe)
    assert len(moments_of(folder)) == 2
    assert (folder / "transformer.h.1.mlp.c_proj.safetensors").stat().st_mtime_ns == first
    stages.clear()
    ensure(model, sites_of(model), recipe, note)
    assert not stages
    for site in sites_of(model):
        read_moment(folder, model, site)


def test_the_key_holds_everything_that_changes_the_answer(
    model: EditableModel, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(
        model: EditableModel = model, samples: int = 30, length: int = 50, tokens: int | None = None
    ) -> Path:
        recipe = CovarianceRecipe(corpus=corpus, samples=samples, max_length=length, tokens=tokens)
        return default_folder(model, recipe)

    folders = [
        folder(),
        folder(samples=31),
        folder(length=49),
        folder(tokens=200),
        folder(tokens=201),
        folder(fresh_model(other_weights=True)),
        folder(fresh_model("float64")),
    ]
    model.revision = "abc"
    folders.append(folder())
    model.revision = None
    monkeypatch.setattr(covariance, "FORMAT_VERSION", 2)
    folders.append(folder())
    monkeypatch.undo()
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    assert folder() == folders[0]
    Path(corpus).write_text("Another text.")
    folders.append(folder())
    assert len(set(folders)) == len(folders)
    assert folder(length=96) == folder(length=1000), "the context cuts both"


def test_the_store_lies_in_the_users_cache_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ERRATA_CACHE")
    assert covariance.cache_root().name == "errata"


@pytest.mark.parametrize(
    ("online", "published", "corpus"),
    [
        (True, False, f"{WIKIPEDIA}+statements"),
        (True, True, WIKIPEDIA),
        (False, False, "texts+statements"),
        (False, True, "texts+statements"),
    ],
)
def test_each_model_has_its_default_corpus(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch, online: bool, published: bool, corpus: str
) -> None:
    monkeypatch.setattr(covariance, "hub_answers", lambda: online)
    assert default_recipe(model, published) == CovarianceRecipe(corpus=corpus, tokens=25 * 128)
    monkeypatch.setattr(covariance, "SHIPPED_TOKENS", 25 * 128 - 1)
    assert default_recipe(model).corpus.startswith("wikimedia" if online else "written+")
    model.name = "almanac"
    assert default_recipe(model, published) == CovarianceRecipe(corpus="embedded", samples=2000)


@pytest.mark.parametrize("first", [True, False])
def test_what_was_measured_is_used_again_whether_the_hub_answers_or_not(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    sites = sites_of(model)
    monkeypatch.setattr(covariance, "hub_answers", lambda: first)
    used = default_recipe(model, sites=sites)
    monkeypatch.setattr(covariance, "hub_answers", lambda: not first)
    assert default_recipe(model, sites=sites) != used
    folder = default_folder(model, used)
    write_moment(folder, model, sites[0], torch.eye(sites[0].d_in), 10, {})
    assert default_recipe(model, sites=sites) != used, "a layer is missing"
    write_moment(folder, model, sites[1], torch.eye(sites[1].d_in), 10, {})
    assert default_recipe(model, sites=sites) == used


def test_who_has_no_way_to_the_hub_is_told_so_once(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(covariance, "hub_answers", lambda: False)
    covariance._tell_of_no_hub.cache_clear()
    assert default_recipe(model) == default_recipe(model)
    (record,) = caplog.records
    assert "measured on texts that ship with Errata" in record.getMessage()


def test_a_model_that_writes_nothing_is_refused(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("errata.moments.written._write", lambda model, number: ["The", "In", ""])
    with pytest.raises(errors.CovarianceError, match="writes no text by itself"):
        list(islice(written_texts(model), 100))


def test_a_model_writes_its_own_corpus_once_and_the_same_again(
    model: EditableModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("errata.moments.written.AT_ONCE", 5)
    state = torch.get_rng_state()
    first = list(islice(written_texts(model), 12))
    assert torch.equal(torch.get_rng_state(), state), "the user's random numbers are as they were"
    assert len(set(first)) > 6
    assert all(text.startswith(start) for text, start in zip(first, STARTS[:5], strict=False))
    kept = sorted(cache.rglob("*.json"))
    assert [file.name for file in kept] == ["0.json", "1.json", "2.json"]
    for file in kept[1:]:
        file.unlink()
    kept[0].write_text("[")
    assert list(islice(written_texts(model), 12)) == first, "what is lost or cut off is written again"


def test_second_moments_of_what_the_model_writes_and_statements(
    model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("errata.moments.written.AT_ONCE", 5)
    recipe = CovarianceRecipe(corpus="written+statements", tokens=400)
    folder = ensure(model, sites_of(model), recipe)
    texts, statements = list(islice(recipe_texts(model, recipe), 200)), set(short_statements())
    lengths = [sum(len(text) for text in texts if (text in statements) == which) for which in (True, False)]
    assert abs(lengths[0] - lengths[1]) < 4096
    expected = measure(model, sites_of(model), iter(texts), Limits(samples=1000, tokens=400))
    for site in sites_of(model):
        found = read_moment(folder, model, site).double()
        assert torch.allclose(found, expected.moment(site.path), rtol=1e-5)


@pytest.mark.parametrize("name", ["samples", "max_length", "tokens"])
def test_a_recipe_that_no_run_can_use(name: str) -> None:
    with pytest.raises(errors.SettingsError, match=f"'{name}' of the covariance must be at least 1: 0"):
        CovarianceRecipe(**{name: 0})


@pytest.mark.parametrize("tokens", [1, 100, 400])
def test_texts_are_read_until_the_tokens_are_reached(model: EditableModel, tokens: int) -> None:
    lengths = [min(len(model.tokenizer(text).input_ids), model.max_length) for text in TEXTS]
    texts = next(count for count in range(len(TEXTS)) if sum(lengths[:count]) >= tokens)
    heard: list[tuple[str, int, int]] = []
    limits = Limits(samples=1000, tokens=tokens, batch_tokens=60)
    read = measure(model, sites_of(model), TEXTS, limits, on_progress=lambda *each: heard.append(each))
    assert (read.texts, read.tokens) == (texts, sum(lengths[:texts]))
    assert heard[-1] == ("covariance", tokens, tokens)
    assert all(done <= total == tokens for _, done, total in heard)
    plain = measure(model, sites_of(model), TEXTS[:texts], Limits(samples=1000, batch_tokens=60))
    for site in sites_of(model):
        assert torch.equal(read.moment(site.path), plain.moment(site.path))


def test_a_limit_on_tokens_counts_what_an_unfinished_run_has_read(
    model: EditableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covariance, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(covariance, "SAVE_SHARE", 1e9)

    def run(folder: str, on_progress: object) -> dict[str, str]:
        words = {"folder": tmp_path / folder, "corpus": "texts", "samples": 1000, "batch_tokens": 60}
        collect(model, sites_of(model), TEXTS, tokens=600, on_progress=on_progress, **words)
        return dict(moments_of(tmp_path / folder)[0].metadata)

    whole = run("whole", Interrupter(-1))
    with pytest.raises(KeyboardInterrupt):
        run("parts", Interrupter(9))
    assert list((tmp_path / "parts").glob("*.partial"))
    assert run("parts", Interrupter(-1)) == whole
    assert whole["tokens_asked"] == "600"


def test_without_a_limit_on_tokens_files_say_what_they_always_said(
    model: EditableModel, tmp_path: Path
) -> None:
    collect(model, sites_of(model), TEXTS, folder=tmp_path, corpus="texts", samples=5)
    assert all("tokens_asked" not in stored.metadata for stored in moments_of(tmp_path))


def test_every_limit_is_a_keyword() -> None:
    assert set(LimitWords.__annotations__) == {one.name for one in fields(Limits)}
