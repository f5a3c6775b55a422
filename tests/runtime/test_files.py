"""Errors of writing name the file that was asked for, and a lock is given back by a process that is killed."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from errata.runtime.files import CACHE_VARIABLE, atomic_file, atomic_folder, locked

HOLD = """
import sys, time
from errata.runtime.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("write", [atomic_file, atomic_folder])
def test_a_full_disk_is_told_with_the_name_of_what_was_to_be_written(write, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as caught, write(tmp_path / "new"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(PermissionError) as caught, atomic_file(tmp_path / "new"):
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/shadow")
    assert caught.value.filename == "/etc/shadow"


@pytest.mark.parametrize("killed", [True, False])
def test_a_second_process_waits_for_the_lock_and_a_killed_one_gives_it_back(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    words = [sys.executable, "-c", HOLD, str(tmp_path / "moments"), "1000" if killed else "1"]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    if killed:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path / "moments"):
        assert killed or holder.wait() == 0
    assert ("Another process is at work" in caplog.text) is not killed
    holder.stdout.close()


def test_where_no_lock_can_be_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with locked(tmp_path / "moments"):
        pass
