"""`alignx vector` as a user types it: on a run's axes, adapters and dense vectors, and with every kind of bad input."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from alignx.cli import run
from alignx.config import RunConfig
from alignx.runs import RunDirectory
from alignx.runs.files import read_json, read_tensors
from alignx.stage1.dense_vector import INDEX_FILE, DenseVector
from alignx.stage1.task_vector import TaskVector, add, read_task_vector

Finished = Callable[[str], tuple[RunConfig, RunDirectory]]


@pytest.fixture
def finished(finished_run: Finished) -> RunDirectory:
    """A run with three axes and a shared expert."""
    return finished_run("llama")[1]


@pytest.fixture
def vectors(finished: RunDirectory) -> dict[str, TaskVector]:
    """The run's task vectors."""
    return {axis: read_task_vector(finished.adapter_folder(axis)) for axis in ("helpful", "harmless", "honest")}


def same(read: TaskVector | DenseVector, expected: TaskVector) -> None:
    for name, update in expected.updates.items():
        tensor = read.tensor(name) if isinstance(read, DenseVector) else read.updates[name].dense()
        torch.testing.assert_close(tensor, update.dense(), rtol=1e-5, atol=1e-5)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail in one line; returns it."""
    assert run(["vector", *arguments]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def test_a_sum_of_axes_is_an_adapter_of_the_summed_rank(capsys, finished, vectors, tmp_path: Path) -> None:
    out = tmp_path / "sum"
    folder = str(finished.adapter_folder("honest"))
    assert run(["vector", "add", f"{finished.root}:helpful", folder, "--weights", "-0.5,2", "--out", str(out)]) == 0
    assert "adapter of rank 4" in capsys.readouterr().out
    same(read_task_vector(out), add([vectors["helpful"], vectors["honest"]], [-0.5, 2]))
    note = read_json(out / "task_vector.json")
    assert note["operation"] == "add" and note["weights"] == [-0.5, 2]
    assert note["inputs"] == [f"{finished.root.name}:helpful", "honest/adapter"]
    assert str(tmp_path) not in (out / "task_vector.json").read_text()


@pytest.mark.parametrize("dense", [[], ["--dense"]])
def test_scale_and_negate_and_what_they_write_can_be_read_again(finished, vectors, tmp_path: Path, dense) -> None:
    half, back = tmp_path / "half", tmp_path / "back"
    assert run(["vector", "scale", f"{finished.root}:honest", "-0.5", "--out", str(half), *dense]) == 0
    assert run(["vector", "negate", str(half), "--out", str(back)]) == 0
    assert (back / INDEX_FILE).is_file() == bool(dense)
    same(DenseVector(back) if dense else read_task_vector(back), vectors["honest"].scaled(0.5))


def test_ties_and_dare_are_dense_and_seeded(capsys, finished, tmp_path: Path) -> None:
    axes = [f"{finished.root}:{axis}" for axis in ("helpful", "honest")]
    assert run(["vector", "ties", *axes, "--out", str(tmp_path / "ties")]) == 0
    assert "dense task vector, 28 parameters" in capsys.readouterr().out
    for name, seed in (("one", "0"), ("again", "0"), ("other", "1")):
        assert run(["vector", "dare", *axes, "--seed", seed, "--out", str(tmp_path / name)]) == 0
    one, again, other = (DenseVector(tmp_path / name) for name in ("one", "again", "other"))
    assert one.about["operation"] == "dare" and one.about["seed"] == 0
    assert all(torch.equal(one.tensor(name), again.tensor(name)) for name in one.names())
    assert not all(torch.equal(one.tensor(name), other.tensor(name)) for name in one.names())


def test_a_merge_cut_to_a_rank_is_an_adapter_and_says_what_was_dropped(capsys, finished, tmp_path: Path) -> None:
    axes = [f"{finished.root}:{axis}" for axis in ("helpful", "honest")]
    assert run(["vector", "ties", *axes, "--rank", "3", "--out", str(tmp_path / "cut")]) == 0
    printed = capsys.readouterr().out
    assert "adapter of rank 3" in printed and "norm dropped: " in printed
    assert run(["vector", "ties", *axes, "--rank", "3", "--json", "--out", str(tmp_path / "again")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["dropped"]["by_parameter"]) == 28
    assert run(["vector", "ties", *axes, "--out", str(tmp_path / "whole")]) == 0
    whole, cut = DenseVector(tmp_path / "whole"), read_task_vector(tmp_path / "cut")
    for name, figures in found["dropped"]["by_parameter"].items():
        distance = float(torch.linalg.matrix_norm(whole.tensor(name) - cut.updates[name].dense()))
        assert figures["dropped"] == pytest.approx(distance, rel=1e-3, abs=1e-5)


def test_a_sum_cut_to_the_summed_rank_drops_nothing(capsys, finished, vectors, tmp_path: Path) -> None:
    axes = [f"{finished.root}:{axis}" for axis in ("helpful", "honest")]
    assert run(["vector", "add", *axes, "--rank", "4", "--out", str(tmp_path / "sum")]) == 0
    assert "norm dropped: 0.0% of the whole" in capsys.readouterr().out
    same(read_task_vector(tmp_path / "sum"), add([vectors["helpful"], vectors["honest"]], [1, 1]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "RUN:honst"], "unknown axis; did you mean `honest`?"),
        (["add", "RUN:zzz"], "the run has helpful, harmless, honest"),
        (["add", "RUN"], "for a run directory give"),
        (["add", "nowhere"], "no such folder"),
        (["add", "nowhere:honest"], "not a run directory"),
        (["add", "RUN:honest", "RUN:helpful", "--weights", "1"], "1 weights for 2 task vectors"),
        (["add", "RUN:honest", "--weights", "nan"], "not a finite number"),
        (["add", "RUN:honest", "--weights", "much"], "expected numbers separated by commas"),
        (["add", "RUN:honest", "--rank", "2", "--dense"], "not together with --dense"),
        (["scale", "RUN:honest", "inf"], "factor inf"),
        (["scale", "RUN:honest", "0.5", "--wieght", "1"], "--help"),
        (["ties", "RUN:honest", "--density", "0"], "density 0.0"),
        (["dare", "RUN:honest", "--density", "1.5"], "density 1.5"),
        (["dare", "RUN:honest", "--rank", "0"], "--rank"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(capsys, finished, tmp_path: Path, arguments, says: str) -> None:
    typed = [word.replace("RUN", str(finished.root), 1) for word in arguments]
    assert says in refused(capsys, *typed, "--out", str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_not_written_over(capsys, finished, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    line = refused(capsys, "negate", f"{finished.root}:honest", "--out", str(tmp_path))
    assert "exists and is not empty" in line
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    (tmp_path / "empty").mkdir()
    assert run(["vector", "negate", f"{finished.root}:honest", "--out", str(tmp_path / "empty")]) == 0


@pytest.mark.parametrize("change", ["base", "modules", "shape"])
def test_vectors_of_different_bases_do_not_add_up(capsys, finished, tmp_path: Path, change: str) -> None:
    other = tmp_path / "adapter"
    shutil.copytree(finished.adapter_folder("honest"), other)
    settings, weights = other / "adapter_config.json", other / "adapter_model.safetensors"
    tensors = read_tensors(weights)
    key = next(key for key in tensors if key.endswith("lora_A.weight"))
    if change == "base":
        settings.write_text(json.dumps({**read_json(settings), "base_model_name_or_path": "owner/another"}))
    elif change == "modules":
        save_file({name: tensor for name, tensor in tensors.items() if key.split(".lora_")[0] not in name}, weights)
    else:
        save_file({**tensors, key: torch.ones(2, 99)}, weights)
    line = refused(capsys, "add", f"{finished.root}:helpful", str(other), "--out", str(tmp_path / "out"))
    says = {"base": "add --same-base", "modules": "update different parameters", "shape": "against different bases"}
    assert says[change] in line
    assert not (tmp_path / "out").exists()
    trusting = ["vector", "add", f"{finished.root}:helpful", str(other), "--same-base", "--out", str(tmp_path / "out")]
    assert run(trusting) == (0 if change == "base" else 2)
