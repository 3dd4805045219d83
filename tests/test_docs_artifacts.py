"""What `docs/artifacts.md` shows is run as it stands."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from alignx.cli import run
from alignx.config import RunConfig
from alignx.models.lazy import LazyBase
from alignx.runs import RunDirectory
from alignx.stage1.keep import keep_artifacts

PAGE = (Path(__file__).parents[1] / "docs" / "artifacts.md").read_text(encoding="utf-8")


@pytest.fixture
def demo(
    finished_run: Callable[[str], tuple[RunConfig, RunDirectory]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunDirectory:
    """A run in `runs/demo` of the working folder, with dense task vectors."""
    config, finished = finished_run("llama")
    monkeypatch.chdir(tmp_path)
    demo = RunDirectory(Path("runs/demo"))
    shutil.copytree(finished.root, demo.root)
    keep = config.stage1.keep.model_copy(update={"dense": True})
    keeping = config.model_copy(update={"stage1": config.stage1.model_copy(update={"keep": keep})})
    keep_artifacts(keeping, demo, LazyBase(keeping, demo))
    return demo


def test_the_pages_python_runs(demo: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for block in blocks:
        exec(block, {})  # it is the page itself that is tested
    assert "torch.Size([16, 8])" in capsys.readouterr().out
    assert len(blocks) == 2


def test_the_pages_commands_run(demo: RunDirectory) -> None:
    commands = re.findall(r"^alignx (vector .*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        assert run(command.split()) == 0
    assert {path.name for path in Path().iterdir()} == {"runs", "half-half", "stronger", "without", "ties", "dare"}
