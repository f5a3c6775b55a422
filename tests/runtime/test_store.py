"""Entries that are kept: found again, never half written, and none where the file is damaged."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from errata.errors import OutputExists
from errata.runtime import Store, digest_of, disk_errors, open_tensors, save_tensors, write_tensors


def read_json(file: Path) -> dict[str, int]:
    return json.loads(file.read_text(encoding="utf-8"))


def first(file: Path) -> torch.Tensor:
    with open_tensors(file) as kept:
        return kept.tensor("a")


def test_a_digest_is_of_all_that_json_says() -> None:
    # Fixed for good: the names of files that are there already.
    assert digest_of(["a", 1, None]) == "30780d0daa72bce56290bae99d93fa5e"
    assert digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    assert digest_of("text", 8) == "982d9e3e"


def test_an_entry_is_found_again_until_it_is_cleared(tmp_path: Path) -> None:
    store = Store(tmp_path / "new", "Numbers", prefix="n-", suffix=".json")
    assert store.get("key", read_json) is None
    store.put("key", lambda aside: aside.write_text('{"a": 1}'))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["n-key.json"]
    assert store.get("key", read_json) == {"a": 1}
    assert store.get("other", read_json) is None
    store.clear("key")
    store.clear("key")
    assert store.get("key", read_json) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_damaged_entry_counts_as_none(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path, "Numbers")
    store.file("key").write_bytes(content)
    assert store.get("key", read_json) is None
    assert store.get("key", first) is None


def test_tensors_are_kept_with_their_header(tmp_path: Path) -> None:
    tensors = {"a/x": torch.arange(6.0).reshape(2, 3).T, "a/y": torch.ones(1), "b": torch.zeros(2)}
    save_tensors(tmp_path / "file", tensors, {"what": "this"})
    with open_tensors(tmp_path / "file") as kept:
        assert kept.header == {"what": "this"}
        assert kept.part().keys() == tensors.keys()
        part = kept.part("a/")
    assert part.keys() == {"x", "y"}
    assert torch.equal(part["x"], tensors["a/x"])
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("disk full")])
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path, error: Exception) -> None:
    def full(aside: Path) -> None:
        write_tensors(aside, {"a": torch.ones(1)}, {})
        raise error

    with pytest.raises(OSError, match=rf"^Numbers cannot be kept in {tmp_path}: .*Is the disk full"):
        Store(tmp_path, "Numbers").put("key", full)
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_way_is_no_fault_of_the_disk() -> None:
    with pytest.raises(OutputExists, match="there"), disk_errors("It cannot be written"):
        raise OutputExists("there")
