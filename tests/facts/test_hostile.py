"""Whatever is in a file, it is read or refused with an error of Errata's own, and memory stays small."""

import gzip
import resource
from pathlib import Path

import pytest
from hypothesis import settings

from errata.edits.edit import load_edit
from errata.errors import EditError, FactError
from errata.facts import records
from errata.facts.reading import read_facts
from hostile import HOSTILE, fuzz_edits, fuzz_facts, small_edit

INPUTS = 200 * settings().max_examples // settings.get_profile("test").max_examples


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused_and_takes_no_memory(name: str, tmp_path: Path) -> None:
    spoil, said = HOSTILE[name]
    small_edit().save(tmp_path / "edit")
    spoil(tmp_path / "edit")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EditError) as caught:
        load_edit(tmp_path / "edit")
    assert said in str(caught.value)
    assert str(tmp_path / "edit") in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10


def test_a_folder_in_a_hub_s_cache_may_link_to_its_blobs(tmp_path: Path) -> None:
    folder, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    small_edit().save(folder)
    blobs.mkdir()
    for file in list(folder.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(blobs / file.name)
    assert load_edit(folder).facts == small_edit().facts


@pytest.mark.fuzz
def test_any_file_of_facts_is_read_or_refused(tmp_path: Path) -> None:
    count = fuzz_facts(tmp_path, INPUTS)
    assert min(count.values()) > INPUTS // 20, count


@pytest.mark.fuzz
def test_any_edit_is_loaded_or_refused(tmp_path: Path) -> None:
    count = fuzz_edits(tmp_path, INPUTS)
    assert min(count.values()) > INPUTS // 40, count


def test_a_packed_file_is_not_unpacked_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 2**20)
    (tmp_path / "facts.gz").write_bytes(gzip.compress(b" " * 2**24))
    with pytest.raises(FactError, match=r"unpacked\. Split it"):
        read_facts(tmp_path / "facts.gz")
