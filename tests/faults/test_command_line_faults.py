"""What goes wrong around a command: the disk, another process, the network, the user's own keys."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from alignx.cli import run as command
from alignx.config import RunConfig
from alignx.runs.lock import writing
from refusals import refused


@pytest.fixture
def config_file(
    tmp_path: Path, tiny_models: dict[str, Path], tiny_config: Callable[..., RunConfig]
) -> Callable[..., str]:
    """A factory of config files; keywords overlay the tiny config."""

    def write(**changes: Any) -> str:
        document = tiny_config(tiny_models["llama"], **changes).model_dump(mode="json")
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    ("place", "key", "near"),
    [
        ((), "stage_1", "stage1"),
        (("stage2", "end_to_end"), "epoch", "epochs"),
        (("axes", "helpful"), "sourse", "source"),
        (("axes", "helpful", "splits"), "trian", "train"),
        (("evaluate",), "bootstrap_draw", "bootstrap_draws"),
    ],
)
def test_an_unknown_key_at_any_depth_names_the_nearest(capsys, config_file, tmp_path: Path, place, key, near) -> None:
    path = Path(config_file())
    document = yaml.safe_load(path.read_text())
    inner = document
    for part in place:
        inner = inner[part]
    inner[key] = 1
    path.write_text(yaml.safe_dump(document))
    line = refused(capsys, "run", str(path), "--out", str(tmp_path / "run"))
    assert f"unknown key `{'.'.join([*place, key])}`; did you mean `{near}`?" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "gone.yaml"], "gone.yaml: no such config file"),
        (["run", "--sing"], "No such option"),
        (["run"], "Missing argument"),
        (["generate", "gone", "Why?"], "gone: not a run directory"),
        (["stage1", "--model", "smollm2-135m", "--dataset", "alpaca=gone.json", "--out", "run"], "gone.json: no such"),
    ],
)
def test_what_is_not_there_is_one_line(capsys, tmp_path: Path, monkeypatch, arguments, says) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_out_may_not_be_a_file(capsys, config_file, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file: is not a folder; give another --out" in refused(
        capsys, "run", config_file(), "--out", str(tmp_path / "file")
    )
    line = refused(capsys, "run", config_file(), "--out", str(tmp_path / "file" / "run"))
    assert "Not a directory" in line or "is not a folder" in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("arguments", [["stage2"], ["evaluate"], ["report"]])
def test_commands_that_write_wait_for_no_one_and_say_who_writes(capsys, finished_run, tmp_path, arguments) -> None:
    root = shutil.copytree(finished_run("llama")[1].root, tmp_path / "run")
    handle = os.open(root / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.pwrite(handle, b"process 123 on somewhere, since noon", 0)
    try:
        line = refused(capsys, *arguments, str(root))
        assert "process 123 on somewhere, since noon writes into it; wait until it is done" in line
        assert command(["generate", str(root), "Why?", "--max-new-tokens", "2"]) == 0  # reading goes on
    finally:
        os.close(handle)


@contextmanager
def _read_only(root: Path) -> Iterator[Path]:
    """A copy of a run that this user may only read; root, who may do anything, becomes nobody for a while."""
    folder = Path(tempfile.mkdtemp()) / "run"
    shutil.copytree(root, folder)
    for path in (folder.parent, folder, *(path for path in folder.rglob("*") if path.is_dir())):
        path.chmod(0o555)
    was_root = os.geteuid() == 0
    try:
        if was_root:
            os.seteuid(65534)
        yield folder
    finally:
        if was_root:
            os.seteuid(0)
        for path in (folder.parent, folder, *(path for path in folder.rglob("*") if path.is_dir())):
            path.chmod(0o755)
        shutil.rmtree(folder.parent)


def test_a_read_only_run_directory_is_one_line(capsys, finished_run) -> None:
    with _read_only(finished_run("llama")[1].root) as folder:
        line = refused(capsys, "stage2", str(folder), "--method", "uniform")
    assert "Permission denied; check the path, its permissions and the free space" in line


def test_a_full_disk_is_one_line_and_leaves_what_was_finished(capsys, config_file, tmp_path: Path) -> None:
    import resource

    path = config_file()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        line = refused(capsys, "run", path, "--out", str(tmp_path / "run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large; check the path, its permissions and the free space" in line
    assert str(tmp_path / "run") in line
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.startswith(".")]


def test_an_interrupt_says_how_to_go_on(capsys, config_file, tmp_path: Path, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        with writing(tmp_path / "run") as run:
            (run.root / "finished").touch()
            raise KeyboardInterrupt

    monkeypatch.setattr("alignx.workflow.run_all", interrupted)
    assert command(["run", config_file(), "--out", str(tmp_path / "run")]) == 130
    err = capsys.readouterr().err
    assert "interrupted; the same command goes on from the last finished step" in err and "Traceback" not in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["finished"]


def test_without_a_terminal_there_are_no_escape_codes(capsys, finished_run, tmp_path: Path) -> None:
    root = str(shutil.copytree(finished_run("llama")[1].root, tmp_path / "run"))
    for arguments in (["--help"], ["generate", root, "Why?"], ["stage2", root], ["generate", root, "--sing"]):
        command(arguments)
        captured = capsys.readouterr()
        assert captured.out + captured.err
        assert "\x1b" not in captured.out + captured.err


@pytest.fixture
def offline(monkeypatch, tmp_path: Path) -> None:
    """HF_HUB_OFFLINE=1 with an empty cache; the libraries read it when they are imported."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def test_a_hub_model_that_is_not_cached_is_one_line_when_offline(capsys, config_file, tmp_path, offline) -> None:
    line = refused(capsys, "run", config_file(model="owner/name"), "--out", str(tmp_path / "run"))
    assert "model `owner/name`: not in the local cache, and HF_HUB_OFFLINE is set; unset it" in line
    assert not (tmp_path / "run").exists()


def test_hub_data_that_are_not_cached_are_one_line_when_offline(capsys, config_file, tmp_path, offline) -> None:
    path = config_file(axes={"helpful": {"source": "owner/name"}})
    line = refused(capsys, "run", path, "--out", str(tmp_path / "run"))
    assert "owner/name: cannot be fetched from the hub" in line and "or give a local file" in line
    assert not (tmp_path / "run").exists()


def test_a_base_that_is_there_as_a_pickle_only_is_never_read(capsys, config_file, tiny_models, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    line = refused(capsys, "run", config_file(model=str(folder)), "--out", str(tmp_path / "run"))
    assert "pytorch_model.bin is a pickle, which can run code when it is read, so it is not; convert it" in line
    assert not (tmp_path / "run").exists()
