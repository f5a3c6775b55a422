"""The store's files: what is written is read back, and every file that cannot be used is refused with a reason."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from errata import errors
from errata.models.model import EditableModel
from errata.moments import folder as moments
from errata.moments.folder import (
    check_positive_definite,
    describe,
    moment_path,
    moments_of,
    read_moment,
    write_moment,
)
from errata.moments.key_sums import Limits, measure
from errata.runtime import save_tensors
from tiny import TEXTS, fresh_model

SITE = "transformer.h.1.mlp.c_proj"
SIZE = 128


@pytest.fixture
def model() -> EditableModel:
    return fresh_model()


def random_moment(size: int = SIZE) -> Tensor:
    keys = torch.randn(4 * size, size, dtype=torch.float64)
    return keys.T @ keys / len(keys)


def foreign(folder: Path, name: str = SITE, **tensors: Tensor) -> Path:
    """A file as another program writes it: two arrays, nothing in the header."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file({"second_moment": random_moment().float(), "count": torch.tensor(1000), **tensors}, path)
    return path


def test_what_is_written_is_read(model: EditableModel, tmp_path: Path) -> None:
    site = model.site("ffn", 1)
    moment = random_moment()
    path = write_moment(tmp_path / "new", model, site, moment, 1234, {"corpus": "notes.txt"})
    assert path == tmp_path / "new" / f"{SITE}.safetensors"
    stored = load_file(path)
    assert set(stored) == {"second_moment", "count"}
    assert stored["second_moment"].dtype == torch.float32
    assert int(stored["count"]) == 1234
    read = read_moment(tmp_path / "new", model, site)
    assert read.dtype == torch.float64
    assert torch.equal(read, read.T)
    torch.testing.assert_close(read, moment, rtol=1e-6, atol=1e-6)


def test_a_file_says_what_it_belongs_to(model: EditableModel, tmp_path: Path) -> None:
    model.revision = "abc"
    write_moment(
        tmp_path,
        model,
        model.site("ffn", 1),
        random_moment(),
        1234,
        {"corpus": "notes.txt", "dtype": "float32"},
    )
    (stored,) = moments_of(tmp_path)
    assert (stored.site, stored.d_in, stored.count) == (SITE, SIZE, 1234)
    assert stored.metadata["model"] == "tiny"
    assert stored.metadata["revision"] == "abc"
    assert stored.metadata["fingerprint"] == model.fingerprint
    assert stored.metadata["corpus"] == "notes.txt"


@pytest.mark.parametrize(
    "count", [torch.tensor(7), torch.tensor([7]), torch.tensor(7.0), torch.tensor([[7]])]
)
def test_files_of_other_programs_are_read(model: EditableModel, tmp_path: Path, count: Tensor) -> None:
    path = foreign(tmp_path, count=count)
    assert describe(path).count == 7
    expected = load_file(path)["second_moment"].double()
    torch.testing.assert_close(
        read_moment(tmp_path, model, model.site("ffn", 1)), expected, rtol=1e-6, atol=1e-7
    )


def test_a_float64_matrix_is_read_without_loss(model: EditableModel, tmp_path: Path) -> None:
    moment = random_moment()
    foreign(tmp_path, second_moment=moment)
    assert torch.equal(read_moment(tmp_path, model, model.site("ffn", 1)), (moment + moment.T) / 2)


def test_a_missing_file_is_named_with_the_command_that_makes_it(model: EditableModel, tmp_path: Path) -> None:
    with pytest.raises(errors.CovarianceMissing) as caught:
        read_moment(tmp_path / "my moments", model, model.site("ffn", 1))
    assert isinstance(caught.value, FileNotFoundError)
    assert str(tmp_path / "my moments" / f"{SITE}.safetensors") in str(caught.value)
    assert f"errata covariance collect tiny --layers 1 --output '{tmp_path / 'my moments'}'" in str(
        caught.value
    )
    with pytest.raises(errors.CovarianceMissing, match="--layers 2 --kind attention"):
        read_moment(tmp_path, model, model.site("attention", 2))


@pytest.mark.parametrize("missing", ["count", "second_moment"])
def test_a_file_without_one_of_the_arrays(model: EditableModel, tmp_path: Path, missing: str) -> None:
    path = foreign(tmp_path)
    tensors = load_file(path)
    del tensors[missing]
    save_file(tensors, path)
    with pytest.raises(errors.CovarianceError, match=rf"{SITE}\.safetensors lacks '{missing}'; it holds"):
        read_moment(tmp_path, model, model.site("ffn", 1))


@pytest.mark.parametrize(
    "count", [torch.tensor(0), torch.tensor(-3), torch.tensor(float("nan")), torch.tensor([1, 2])]
)
def test_a_count_that_is_no_count(model: EditableModel, tmp_path: Path, count: Tensor) -> None:
    foreign(tmp_path, count=count)
    with pytest.raises(errors.CovarianceError, match="count must be one number above 0, not"):
        read_moment(tmp_path, model, model.site("ffn", 1))


@pytest.mark.parametrize("shape", [(16, 16), (SIZE, 16), (SIZE,), ()])
def test_another_size_belongs_to_another_model(
    model: EditableModel, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    foreign(tmp_path, second_moment=torch.ones(shape))
    with pytest.raises(
        errors.CovarianceMismatch, match=rf"c_proj of tiny has {SIZE} inputs, so it must be 128 x 128"
    ):
        read_moment(tmp_path, model, model.site("ffn", 1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_elements_that_are_no_numbers(model: EditableModel, tmp_path: Path, bad: float) -> None:
    moment = random_moment().float()
    moment[3, 4] = bad
    foreign(tmp_path, second_moment=moment)
    with pytest.raises(
        errors.CovarianceError, match=rf"{SITE}.*: 1 of 16384 elements are infinite or not a number"
    ):
        read_moment(tmp_path, model, model.site("ffn", 1))


def test_a_matrix_that_is_not_symmetric(model: EditableModel, tmp_path: Path) -> None:
    moment = random_moment().float()
    moment[3, 4] += 1
    foreign(tmp_path, second_moment=moment)
    with pytest.raises(errors.CovarianceError, match=r"not symmetric .* no second moment"):
        read_moment(tmp_path, model, model.site("ffn", 1))


def test_half_precision_is_too_coarse(model: EditableModel, tmp_path: Path) -> None:
    foreign(tmp_path, second_moment=random_moment().half())
    with pytest.raises(errors.CovarianceError, match=r"second_moment is float16, too coarse.*float32"):
        read_moment(tmp_path, model, model.site("ffn", 1))


@pytest.mark.parametrize("kept", [0, 5, 200, 4000])
def test_a_file_cut_off(model: EditableModel, tmp_path: Path, kept: int) -> None:
    path = foreign(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(errors.CovarianceError, match=r"cut off or damaged.*Remove it and collect"):
        read_moment(tmp_path, model, model.site("ffn", 1))


def test_moments_of_other_weights_are_refused(model: EditableModel, tmp_path: Path) -> None:
    write_moment(tmp_path, model, model.site("ffn", 1), random_moment(), 1000, {})
    other = fresh_model(other_weights=True)
    with pytest.raises(errors.CovarianceMismatch) as caught:
        read_moment(tmp_path, other, other.site("ffn", 1))
    assert f"{SITE}.safetensors" in str(caught.value)
    assert model.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)
    assert "another model" in str(caught.value)


def test_moments_of_another_revision_are_refused(model: EditableModel, tmp_path: Path) -> None:
    model.revision = "one"
    write_moment(tmp_path, model, model.site("ffn", 1), random_moment(), 1000, {})
    read_moment(tmp_path, model, model.site("ffn", 1))
    model.revision = None
    read_moment(tmp_path, model, model.site("ffn", 1))
    model.revision = "two"
    with pytest.raises(errors.CovarianceMismatch, match=r"another revision: it says one.*which has two"):
        read_moment(tmp_path, model, model.site("ffn", 1))


def test_a_renamed_file_is_refused(model: EditableModel, tmp_path: Path) -> None:
    path = write_moment(tmp_path, model, model.site("ffn", 1), random_moment(), 1000, {})
    path.rename(moment_path(tmp_path, "transformer.h.2.mlp.c_proj"))
    with pytest.raises(
        errors.CovarianceMismatch, match=r"another site: it says transformer\.h\.1.*h\.2.*do not rename"
    ):
        read_moment(tmp_path, model, model.site("ffn", 2))


def test_another_dtype_is_refused(model: EditableModel, tmp_path: Path) -> None:
    write_moment(tmp_path, model, model.site("ffn", 1), random_moment(), 1000, {"dtype": "bfloat16"})
    with pytest.raises(
        errors.CovarianceMismatch, match=r"another dtype: it says bfloat16.*which has float32.*--dtype"
    ):
        read_moment(tmp_path, model, model.site("ffn", 1))


def test_a_format_of_the_future_is_refused(
    model: EditableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "FORMAT_VERSION", 9)
    write_moment(tmp_path, model, model.site("ffn", 1), random_moment(), 1000, {})
    monkeypatch.undo()
    with pytest.raises(errors.CovarianceError, match=r"has format 9; this Errata .* reads format 1. Update"):
        read_moment(tmp_path, model, model.site("ffn", 1))


def test_nothing_unusable_is_written(model: EditableModel, tmp_path: Path) -> None:
    moment = random_moment()
    moment[0, 0] = float("nan")
    with pytest.raises(errors.CovarianceError, match="not a number"):
        write_moment(tmp_path, model, model.site("ffn", 1), moment, 10, {})
    with pytest.raises(errors.CovarianceMismatch, match="16 x 16"):
        write_moment(tmp_path, model, model.site("ffn", 1), random_moment(16), 10, {})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fails)
    with pytest.raises(
        OSError, match=r"moment\.safetensors \(4 MB\) cannot be written.*No space left.*disk full"
    ):
        save_tensors(tmp_path / "moment.safetensors", {"a": torch.zeros(1024, 1024)}, {})
    assert not list(tmp_path.iterdir())


def test_a_folder_is_listed_in_the_order_of_its_layers(tmp_path: Path) -> None:
    for layer in (10, 9, 0):
        foreign(tmp_path, f"transformer.h.{layer}.mlp.c_proj")
    assert [stored.site for stored in moments_of(tmp_path)] == [
        "transformer.h.0.mlp.c_proj",
        "transformer.h.9.mlp.c_proj",
        "transformer.h.10.mlp.c_proj",
    ]
    assert {(stored.d_in, stored.count, len(stored.metadata)) for stored in moments_of(tmp_path)} == {
        (SIZE, 1000, 0)
    }


def test_a_folder_without_moments(tmp_path: Path) -> None:
    with pytest.raises(errors.CovarianceMissing, match=r"holds no \.safetensors file"):
        moments_of(tmp_path)
    with pytest.raises(errors.CovarianceMissing, match=r"nowhere is not a folder.*errata covariance collect"):
        moments_of(tmp_path / "nowhere")


def test_a_checkpoint_is_no_folder_of_moments(tmp_path: Path) -> None:
    save_file({"lm_head.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(
        errors.CovarianceError, match=r"lacks 'second_moment' and 'count'; it holds lm_head\.weight"
    ):
        moments_of(tmp_path)


def test_too_few_tokens_are_told_where_a_moment_cannot_be_solved_with(
    model: EditableModel, tmp_path: Path
) -> None:
    site = model.site("ffn", 1)
    sums = measure(model, [site], TEXTS, Limits(samples=2))
    path = write_moment(tmp_path, model, site, sums.moment(site.path), sums.tokens, {})
    with pytest.raises(errors.CovarianceError) as caught:
        check_positive_definite(read_moment(tmp_path, model, site), path)
    assert f"measured on {sums.tokens} tokens, which have to span the {SIZE} inputs" in str(caught.value)
    assert "at least some 1280 tokens" in str(caught.value)
    enough = measure(model, [site], TEXTS, Limits(samples=72))
    check_positive_definite(enough.moment(site.path), path)


def test_inputs_that_are_always_zero_are_told(tmp_path: Path) -> None:
    moment = random_moment()
    moment[5] = 0
    moment[:, 5] = 0
    with pytest.raises(errors.CovarianceError, match=r"1 of the inputs are zero on every token"):
        check_positive_definite(moment, tmp_path / "not there")
