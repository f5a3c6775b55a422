"""Cholesky factors of second moments: kept, found again, made anew."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from errata.errors import CovarianceError
from errata.models.model import Site
from errata.moments.factors import Factors
from errata.moments.folder import check_positive_definite, moment_path, read_moment, write_moment
from errata.runtime.files import cache_root
from errata.solve.keys import KeyPrompts
from errata.solve.least_squares import LeastSquares
from errata.solve.spread import Write, spread
from families import CONTEXTS, FACTS, tiny_model
from spread_cases import moment_of, settings_of
from stream_cases import values_of
from tolerances import DEPTH, assert_agree


def stored(
    tmp_path: Path, change: Callable[[Tensor], Tensor] = lambda moment: moment
) -> tuple[Factors, Site]:
    model = tiny_model("gpt2", "float64")
    site = model.site("ffn", 1)
    write_moment(tmp_path, model, site, change(moment_of(site)), 1000, {})
    return Factors(tmp_path, model), site


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_a_factor_is_kept_and_found_again(
    ridge: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors, site = stored(tmp_path)
    moment = read_moment(tmp_path, factors.model, site)
    moment = moment + ridge * moment.trace() / len(moment) * torch.eye(len(moment), dtype=torch.float64)
    made = factors.lower(site, ridge)
    assert made is not None
    assert_agree(made @ made.T, moment, 128, DEPTH)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", None)
    found = factors.lower(site, ridge)
    assert found is not None
    assert torch.equal(found, made)
    factors.check(site)


@pytest.mark.parametrize("changed", ["the moments", "the ridge", "the file"])
def test_a_factor_of_something_else_is_made_anew(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    factors, site = stored(tmp_path)
    first = factors.lower(site, 0.0)
    ridge = 0.5 if changed == "the ridge" else 0.0
    if changed == "the moments":
        stored(tmp_path, lambda moment: 4 * moment)
    if changed == "the file":
        (path,) = (cache_root() / "factors").iterdir()
        path.write_bytes(path.read_bytes()[:-100])
    second = factors.lower(site, ridge)
    assert first is not None
    assert second is not None
    assert torch.equal(first, second) == (changed == "the file")


def test_moments_without_a_factor_are_told_by_the_check_alone(tmp_path: Path) -> None:
    factors, site = stored(tmp_path, lambda moment: -moment)
    assert factors.lower(site, 0.0) is None
    with pytest.raises(CovarianceError, match="not positive definite"):
        factors.check(site)
    with pytest.raises(CovarianceError):
        check_positive_definite(read_moment(tmp_path, factors.model, site), moment_path(tmp_path, site.path))


def test_a_factor_that_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    factors, site = stored(tmp_path)
    (tmp_path / "cache").write_text("in the way")
    assert factors.lower(site, 0.0) is not None


def test_nothing_is_written_where_the_moments_lie(tmp_path: Path) -> None:
    factors, site = stored(tmp_path / "given")
    factors.check(site)
    factors.lower(site, 0.0)
    assert [path.name for path in (tmp_path / "given").iterdir()] == [f"{site.path}.safetensors"]


def test_the_factor_gives_the_update_of_a_whole_spread(tmp_path: Path) -> None:
    model = tiny_model("llama", "float64")
    for layer in (1, 2):
        write_moment(tmp_path, model, model.site("ffn", layer), moment_of(model.site("ffn", layer)), 1000, {})
    prompts = KeyPrompts.of(model, FACTS, CONTEXTS)
    writes = [Write("ffn", model.site("ffn", 2).path, values_of(model, len(FACTS)))]

    def moment(site: Site) -> Tensor:
        return read_moment(tmp_path, model, site)

    settings = settings_of()
    one = spread(model, settings, writes, prompts, LeastSquares(moment, 5.0, 0.1))
    lower = Factors(tmp_path, model).lower
    other = spread(model, settings, writes, prompts, LeastSquares(moment, 5.0, 0.1, lower))
    for path, delta in one.items():
        torch.testing.assert_close(
            other[path].matrix, delta.matrix, rtol=0, atol=1e-9 * float(delta.matrix.abs().max())
        )
