"""One writer a run directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alignx.errors import ArtifactError, ConfigError
from alignx.runs.lock import writing


@contextmanager
def locked_by_another(root: Path) -> Iterator[None]:
    """The lock as another process holds it: a second open file is enough for flock."""
    handle = os.open(root / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.pwrite(handle, b"process 123 on somewhere, since noon", 0)
    try:
        yield
    finally:
        os.close(handle)


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with locked_by_another(tmp_path), pytest.raises(ArtifactError, match="process 123 on somewhere.* or use another"):
        with writing(tmp_path):
            pass
    assert (tmp_path / ".lock").is_file()  # it is the other's
    with writing(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 1 on somewhere")
    with writing(tmp_path) as run:
        assert f"process {os.getpid()} on" in (run.root / ".lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_into_which_nothing_was_put_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing(tmp_path / "a" / "b"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_was_put_into_it_stays(tmp_path: Path) -> None:
    with writing(tmp_path / "a") as run:
        (run.root / "file").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_job_that_writes_may_call_another(tmp_path: Path) -> None:
    with writing(tmp_path):
        with writing(tmp_path):
            pass
        assert (tmp_path / ".lock").is_file()


def test_of_several_processes_of_one_job_the_main_one_takes_the_lock(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with locked_by_another(tmp_path), writing(tmp_path) as run:
        assert run.root == tmp_path


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: is not a folder; give another --out"), writing(tmp_path / "file"):
        pass


@pytest.mark.parametrize(("version", "says"), [(2, "newer AlignX.*pip install --upgrade"), (0, "older AlignX.*again")])
def test_a_directory_of_another_layout_is_left_alone(tmp_path: Path, version: int, says: str) -> None:
    (tmp_path / "run.yaml").write_text(f"schema_version: {version}\nconfig: {{}}\n")
    with pytest.raises(ArtifactError, match=says), writing(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]
