"""Half-written files: whose they are, and when they go."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from alignx.runs.files import write_tensors, write_text
from alignx.runs.lock import writing
from alignx.runs.temporaries import SUFFIX, remove_stale, temporary_prefix

_KILLED = """
import os, pathlib, signal, sys
from alignx.runs.files import write_text, write_whole

def half(temporary):
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

root = pathlib.Path(sys.argv[1])
write_text(root / "old.txt", "whole")
write_whole(root / sys.argv[2], half)
"""


@pytest.mark.parametrize("name", ["old.txt", "new.txt"])
def test_a_file_whose_writer_is_killed_is_as_before_and_its_remains_go(tmp_path: Path, capsys, name: str) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), name], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "old.txt").read_text() == "whole"
    assert not (tmp_path / "new.txt").exists()
    assert len(list(tmp_path.iterdir())) == 2
    with writing(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    assert "left half-written by a process that was killed" in capsys.readouterr().err


def test_files_that_a_living_process_writes_stay(tmp_path: Path) -> None:
    ours = tmp_path / f"{temporary_prefix('file.json')}abc{SUFFIX}"
    ours.touch()
    others = [
        tmp_path / ".hidden.part",
        tmp_path / ".a.b.c.d.part",
        tmp_path / "plain.part",
        tmp_path / ".a.b.7.part.x",
    ]
    for path in others:
        path.touch()
    assert remove_stale(tmp_path) == []


def test_a_dead_writers_folder_goes_too_and_another_hosts_when_it_is_old(tmp_path: Path) -> None:
    dead = temporary_prefix("adapter").replace(f".{os.getpid()}.", ".999999999.")
    folder = tmp_path / "stage1" / f"{dead}x{SUFFIX}"
    (folder / "inner").mkdir(parents=True)
    young, old = (tmp_path / f".file.0123abcd.{pid}.x{SUFFIX}" for pid in (1, 2))
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    assert set(remove_stale(tmp_path)) == {folder, old}
    assert young.exists() and not folder.exists() and not old.exists()


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "write",
    [lambda path: write_text(path, "a" * 4000), lambda path: write_tensors(path, {"a": torch.zeros(1000)})],
    ids=["text", "tensors"],
)
def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path, write) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with full_disk(1000), pytest.raises(OSError, match="File too large") as caught:
        write(path)
    assert caught.value.filename == str(path)
    assert [found.read_text() for found in tmp_path.iterdir()] == ["old"]
