import json
from pathlib import Path

import pytest

from alignx.cli import run


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = run(["plan", *arguments])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to plan; give --model"),
        (["--model", "mistral"], "no such folder and not a hub id; give a preset"),
        (["--model", "mistral-7b", "--gpus", "-1"], "--gpus -1: give 0 for the processor"),
        (["--model", "mistral-7b", "--gpu-memory", "0"], "--gpu-memory 0: give the GiB"),
        (["--model", "mistral-7b", "--gpus", "0", "--gpu-memory", "8"], "contradicts --gpus 0"),
        (["--model", "mistral-7b", "--gpus", "two"], "--gpus"),
    ],
)
def test_what_cannot_be_planned_is_one_line(capsys, arguments: list[str], says: str) -> None:
    assert says in refused(capsys, *arguments)


def test_a_plan_is_printed_without_escape_codes(capsys, tiny_models: dict[str, Path]) -> None:
    assert run(["plan", "--model", str(tiny_models["gemma"]), "--gpus", "0"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "Stage 2, end to end" in printed
    assert "advice: the settings fit" in printed


def test_a_config_decides_what_is_planned(capsys, tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("axes: {kind: {dataset: alpaca}}\nstage1: {rank: 3, shared_expert: false}\n", encoding="utf-8")
    assert run(["plan", "--model", str(tiny_models["llama"]), "--config", str(path), "--gpus", "2", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert list(plan["tokens"]["experts"]) == ["kind"]
    assert plan["machine"]["devices"] == 2
    assert not plan["machine"]["measured"]
    assert {fit["fits"] for fit in plan["fits"]} == {True}


def test_a_machine_that_is_too_small_is_told(capsys, tiny_models: dict[str, Path]) -> None:
    command = ["plan", "--model", str(tiny_models["llama"]), "--gpus", "1", "--gpu-memory", "0.1"]
    assert run(command) == 0
    assert "advice: nothing fits" in capsys.readouterr().out
