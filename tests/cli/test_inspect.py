"""`alignx inspect` on whole, partial, stale and damaged runs."""

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from alignx.cli import run
from alignx.config import RunConfig
from alignx.inspect.contents import inspect_run
from alignx.models.lazy import LazyBase
from alignx.runs import RunDirectory
from alignx.runs.environment import describe_environment
from alignx.stage1.keep import keep_artifacts
from alignx.stage1.task_vector import read_task_vector

Finished = Callable[[str], tuple[RunConfig, RunDirectory]]
PICTURES = ["cosines.svg", "layer_norms.svg", "principal_angles.svg", "signatures.svg"]


@pytest.fixture
def copied(finished_run: Finished, tmp_path: Path) -> tuple[RunConfig, RunDirectory]:
    """A run with both stages done, which the test may change."""
    config, finished = finished_run("llama")
    shutil.copytree(finished.root, tmp_path / "run")
    return config, RunDirectory(tmp_path / "run")


def states(found: dict) -> dict[str, str]:
    return {artifact["name"]: artifact["state"] for artifact in found["artifacts"]}


def test_a_finished_run_shows_everything(copied, capsys: pytest.CaptureFixture[str]) -> None:
    _, directory = copied
    assert run(["inspect", str(directory.root)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "expert honest",
        "presets of the dial: balanced, cautious, frank, eager, lean-helpful, lean-harmless, lean-honest",
        "cosines between task vectors, exact; in brackets: estimated from the parameter matrix",
        "principal angles in degrees",
        "latent space: 8 directions at layer",
        "training (loss in nats per target token)",
        "made by alignx evaluate",
    ):
        assert words in printed
    assert "stale" not in printed and "problem" not in printed
    assert sorted(path.name for path in (directory.root / "inspect").iterdir()) == PICTURES
    for name in PICTURES:
        ElementTree.parse(directory.root / "inspect" / name)


def test_json_holds_the_same_figures(copied, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, directory = copied
    assert run(["inspect", str(directory.root), "--json", "--out", str(tmp_path / "pictures")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not (directory.root / "inspect").exists()
    assert sorted(Path(path).name for path in found["pictures"]) == PICTURES
    names = found["vectors"]["names"]
    assert names == ["shared", *config.axes]
    vectors = [read_task_vector(directory.adapter_folder(name)) for name in names]
    assert found["vectors"]["norms"] == pytest.approx([vector.norm() for vector in vectors])
    assert found["vectors"]["cosines"][1][2] == pytest.approx(vectors[1].cosine(vectors[2]))
    assert found["vectors"]["estimated_cosines"][0] == [None] * 4
    assert found["vectors"]["estimated_cosines"][1][1] == pytest.approx(1)
    assert len(found["angles"]) == 6
    assert {tuple(entry["pair"]): entry["prompts"] is None for entry in found["angles"]}[("shared", "honest")]
    assert all(len(points) == 16 and len(points[0]) == 2 for points in found["signatures"].values())
    assert found["latent"]["widths"] == [8] * len(found["latent"]["layers"])
    assert found["problems"] == []


def test_a_run_with_some_axes_and_no_latent_space_shows_those(copied, capsys: pytest.CaptureFixture[str]) -> None:
    config, directory = copied
    shutil.rmtree(directory.root / "stage1" / "honest")
    for path in (directory.latent_path, directory.parameter_matrix_path, directory.signature_path("helpful")):
        path.unlink()
    assert run(["inspect", str(directory.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert states(found)["expert honest"] == "missing" and states(found)["latent space"] == "missing"
    assert states(found)["task matrix helpful"] == "stale"
    assert found["vectors"]["names"] == ["shared", "helpful", "harmless"]
    assert found["vectors"]["estimated_cosines"] is None
    assert [Path(path).name for path in found["pictures"]] == PICTURES[:3]
    assert run(["inspect", str(directory.root)]) == 0


def test_one_axis_has_norms_and_no_pairs(tmp_path: Path, copied, capsys: pytest.CaptureFixture[str]) -> None:
    config, directory = copied
    stage1 = config.stage1.model_copy(update={"shared_expert": False})
    alone = config.model_copy(update={"axes": {"helpful": config.axes["helpful"]}, "stage1": stage1})
    directory.write_config(alone, describe_environment())
    shutil.rmtree(directory.root / "stage2")
    assert run(["inspect", str(directory.root)]) == 0
    printed = capsys.readouterr().out
    assert "cosines" not in printed and "principal angles in" not in printed
    assert "expert helpful is stale" in printed
    names = sorted(path.name for path in (directory.root / "inspect").iterdir())
    assert names == ["layer_norms.svg", "signatures.svg"]


def test_nothing_trained_yet_is_said(copied, capsys: pytest.CaptureFixture[str]) -> None:
    _, directory = copied
    shutil.rmtree(directory.root / "stage1")
    assert run(["inspect", str(directory.root)]) == 0
    assert "no expert is trained yet" in capsys.readouterr().out
    assert not (directory.root / "inspect").exists()


def test_other_prompts_make_what_was_made_from_them_stale(copied) -> None:
    _, directory = copied
    splits = json.loads(directory.splits_path.read_text())
    splits["axes"]["honest"]["fingerprint"] = "another"
    directory.splits_path.write_text(json.dumps(splits))
    found = states(inspect_run(directory))
    assert found["expert honest"] == found["shared expert"] == found["mixture"] == "stale"
    directory.splits_path.unlink()
    found = states(inspect_run(directory))
    assert found["splits"] == "missing" and found["expert helpful"] == "stale"


def test_large_artifacts_are_listed_where_they_are_and_give_norms_relative_to_the_base(copied) -> None:
    config, directory = copied
    before = inspect_run(directory)
    assert "base weights" not in states(before) and before["vectors"]["relative_norms"] is None
    keep = config.stage1.keep.model_copy(update={"dense": True, "copy_base": True, "merged": True})
    keeping = config.model_copy(update={"stage1": config.stage1.model_copy(update={"keep": keep})})
    lazy = LazyBase(keeping, directory)
    keep_artifacts(keeping, directory, lazy)
    found = inspect_run(directory)
    assert all(state in {"present", "missing"} for state in states(found).values())
    wanted = ["dense task vector shared", "dense task vector honest", "base weights", "merged model honest"]
    assert all(states(found)[name] == "present" for name in wanted)
    modules = read_task_vector(directory.adapter_folder("honest")).updates
    weights = [lazy.base.model.get_submodule(name).weight.double() for name in modules]
    base_norm = sum(float(weight.square().sum()) for weight in weights) ** 0.5
    expected = [norm / base_norm for norm in found["vectors"]["norms"]]
    assert found["vectors"]["relative_norms"] == pytest.approx(expected)


def test_a_damaged_file_is_a_problem_and_the_rest_is_shown(copied, capsys: pytest.CaptureFixture[str]) -> None:
    _, directory = copied
    (directory.adapter_folder("honest") / "adapter_model.safetensors").write_bytes(b"x")
    directory.latent_path.write_bytes(b"")
    directory.task_matrix_path("helpful").write_bytes(b"")
    assert run(["inspect", str(directory.root)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("problem: ") == 3
    assert "adapter_model.safetensors: damaged" in printed and "harmless" in printed


def test_what_is_no_run_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["inspect", str(tmp_path)]) == 2
    assert "not a run directory (no run.yaml)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
