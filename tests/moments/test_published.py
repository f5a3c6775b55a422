"""Published statistics files: the quotient of their sum and count, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from errata import errors
from errata.models.model import EditableModel
from errata.moments.folder import describe, read_moment
from errata.moments.published import import_npz
from tiny import fresh_model

SIZE = 128


@pytest.fixture
def model() -> EditableModel:
    return fresh_model()


def total(size: int = SIZE) -> np.ndarray:
    keys = np.random.default_rng(0).standard_normal((500, size)).astype(np.float32)
    return keys.T @ keys


def published(path: Path, **arrays: object) -> Path:
    """A file with the names that the published programs give, and the object array that they store as well."""
    names = {
        "mom2.constructor": np.array("util.runningstats.SecondMoment()", dtype=object),
        "mom2.count": 500,
        "mom2.mom2": total(),
        "sample_size": 100,
        **arrays,
    }
    np.savez(path, **{name: value for name, value in names.items() if value is not None})
    return path


def test_the_moment_is_the_quotient(model: EditableModel, tmp_path: Path) -> None:
    site = model.site("ffn", 1)
    file = published(tmp_path / "transformer.h.1.mlp.c_proj_float32_mom2_100000.npz")
    path = import_npz(file, model, site, tmp_path / "store")
    stored = describe(path)
    assert (stored.site, stored.count) == (site.path, 500)
    assert stored.metadata["fingerprint"] == model.fingerprint
    assert stored.metadata["corpus"] == "imported from transformer.h.1.mlp.c_proj_float32_mom2_100000.npz"
    expected = torch.from_numpy(total()).double() / 500
    torch.testing.assert_close(read_moment(tmp_path / "store", model, site), expected, rtol=1e-6, atol=1e-7)


def test_what_is_there_is_not_replaced(model: EditableModel, tmp_path: Path) -> None:
    file = published(tmp_path / "a.npz")
    import_npz(file, model, model.site("ffn", 1), tmp_path)
    with pytest.raises(errors.OutputExists, match=r"c_proj\.safetensors exists already"):
        import_npz(file, model, model.site("ffn", 1), tmp_path)


def test_a_file_named_after_another_layer(model: EditableModel, tmp_path: Path) -> None:
    file = published(tmp_path / "transformer.h.2.mlp.c_proj_float32_mom2_100000.npz")
    with pytest.raises(
        errors.CovarianceMismatch, match=r"named after transformer\.h\.2.*h\.1.* was asked for"
    ):
        import_npz(file, model, model.site("ffn", 1), tmp_path)


def test_a_file_of_another_model(model: EditableModel, tmp_path: Path) -> None:
    file = published(tmp_path / "a.npz", **{"mom2.mom2": total(16)})
    with pytest.raises(errors.CovarianceMismatch, match=r"a\.npz, mom2\.mom2: .*16 x 16.*must be 128 x 128"):
        import_npz(file, model, model.site("ffn", 1), tmp_path)


@pytest.mark.parametrize("name", ["mom2.mom2", "mom2.count"])
def test_a_file_without_one_of_the_arrays(model: EditableModel, tmp_path: Path, name: str) -> None:
    file = published(tmp_path / "a.npz", **{name: None})
    with pytest.raises(errors.CovarianceError, match=rf"lacks '{name}'; it holds mom2\.constructor"):
        import_npz(file, model, model.site("ffn", 1), tmp_path)


@pytest.mark.parametrize("count", [0, -1, [1, 2], float("nan"), "many"])
def test_a_count_that_is_no_count(model: EditableModel, tmp_path: Path, count: object) -> None:
    file = published(tmp_path / "a.npz", **{"mom2.count": count})
    with pytest.raises(errors.CovarianceError, match=r"mom2\.count must be one number above 0"):
        import_npz(file, model, model.site("ffn", 1), tmp_path)


def test_a_sum_that_is_not_finite_or_not_of_numbers(model: EditableModel, tmp_path: Path) -> None:
    bad = total()
    bad[0, 0] = np.nan
    with pytest.raises(errors.CovarianceError, match=r"a\.npz, mom2\.mom2: 1 of 16384 elements"):
        import_npz(published(tmp_path / "a.npz", **{"mom2.mom2": bad}), model, model.site("ffn", 1), tmp_path)
    whole = published(tmp_path / "b.npz", **{"mom2.mom2": np.ones((SIZE, SIZE), dtype=np.int64)})
    with pytest.raises(errors.CovarianceError, match=r"mom2\.mom2 holds int64"):
        import_npz(whole, model, model.site("ffn", 1), tmp_path)


def test_nothing_pickled_is_read(model: EditableModel, tmp_path: Path) -> None:
    file = published(tmp_path / "a.npz", **{"mom2.mom2": np.array([[object()]], dtype=object)[:, :0]})
    with pytest.raises(errors.CovarianceError, match="not a readable"):
        import_npz(file, model, model.site("ffn", 1), tmp_path)


def test_what_is_no_archive(model: EditableModel, tmp_path: Path) -> None:
    site = model.site("ffn", 1)
    with pytest.raises(errors.CovarianceMissing, match=r"There is no file .*gone\.npz"):
        import_npz(tmp_path / "gone.npz", model, site, tmp_path)
    whole = published(tmp_path / "a.npz").read_bytes()
    np.save(tmp_path / "single.npy", total())
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("single.npy", "text.npz", "empty.npz", "cut.npz"):
        with pytest.raises(errors.CovarianceError, match=rf"{name} is not a readable \.npz file .*whole"):
            import_npz(tmp_path / name, model, site, tmp_path)
