import shutil

import pytest
import torch

from alignx.errors import AlignXError, ArtifactError
from alignx.models.fingerprint import model_sha256
from alignx.runs import RunDirectory
from alignx.runs.files import read_json, read_tensors, write_json
from alignx.stage1.extracts import read_latent_space
from alignx.stage1.pipeline import run_stage1
from alignx.stage2.pipeline import read_mocae, run_stage2

AXES = ("helpful", "harmless", "honest")


def test_a_run_holds_every_artifact_with_its_shape(finished_run, architecture):
    config, run = finished_run(architecture)
    space, mocae = read_latent_space(run), read_mocae(run)
    assert mocae.axes == AXES and list(mocae.widths) == space.widths == [8, 8]
    parameters = read_tensors(run.parameter_matrix_path)
    for axis in AXES:
        assert parameters[axis].shape == (4 * 7, 8)
        assert read_tensors(run.signature_path(axis))["signature"].shape == (16, 16)
        assert read_tensors(run.task_matrix_path(axis))["task_matrix"].shape == (16, 8)


def test_the_base_is_as_it_was_before(finished_run, load_tiny, architecture):
    _, run = finished_run(architecture)
    assert read_json(run.base_path)["tensors"] == model_sha256(load_tiny(architecture).model)


def test_every_expert_is_scored_on_every_mix_and_calibration_prompt(finished_run):
    _, run = finished_run("llama")
    losses = read_json(run.root / "stage2" / "expert_losses.json")["losses"]
    for split in ("mix", "calibration"):
        found = torch.tensor([losses[split][axis] for axis in AXES])
        assert found.shape == (3, 8, 3) and (found > 0).all()


def test_the_end_to_end_step_keeps_its_losses(finished_run):
    _, run = finished_run("llama")
    assert len(read_json(run.mocae_settings_path)["end_to_end"]["training_losses"]) == 1


def test_a_finished_run_is_left_as_it_is(finished_run):
    config, run = finished_run("llama")
    before = {path: path.stat().st_mtime_ns for path in run.root.glob("stage*/**/*") if path.is_file()}
    run_stage1(config, run)
    run_stage2(config, run)
    assert {path: path.stat().st_mtime_ns for path in run.root.glob("stage*/**/*") if path.is_file()} == before


def test_stage2_without_stage1_says_what_to_run(tiny_config, tiny_models, tmp_path):
    with pytest.raises(ArtifactError):
        run_stage2(tiny_config(tiny_models["llama"]), RunDirectory(tmp_path))


def test_a_run_without_a_mixture_says_what_to_run(tmp_path):
    with pytest.raises(ArtifactError, match="no mixture yet; run `alignx stage2"):
        read_mocae(RunDirectory(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"axes": 3}'])
def test_damaged_settings_are_named(finished_run, tmp_path, content):
    run = RunDirectory(tmp_path)
    (tmp_path / "stage2").mkdir()
    run.mocae_path.write_bytes(finished_run("llama")[1].mocae_path.read_bytes())
    run.mocae_settings_path.write_text(content)
    with pytest.raises(ArtifactError, match="mocae.json: damaged"):
        read_mocae(run)


def test_a_mixture_whose_best_head_reads_something_else_is_refused_and_made_anew(finished_run, tmp_path):
    config, finished = finished_run("llama")
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(finished.root, run.root)
    settings = read_json(run.mocae_settings_path)
    del settings["best_head_reads"]
    write_json(run.mocae_settings_path, settings)
    run.mark_done("mocae", {}, run.mocae_path, run.mocae_settings_path)
    with pytest.raises(ArtifactError, match="best-expert head reads 'l, s.F, s.N'.*run `alignx stage2`"):
        read_mocae(run)
    run_stage2(config, run)
    assert read_mocae(run).settings() == read_mocae(finished).settings()


def test_experts_that_blew_up_in_their_last_step_are_an_error_of_ours(tiny_config, tiny_models, tmp_path):
    """16 prompts in steps of 8: no loss is taken after the second step, which makes the experts useless."""
    stage1 = {"learning_rate": 1e30, "batch_size": 8, "shared_expert": False}
    config, run = tiny_config(tiny_models["llama"], stage1=stage1), RunDirectory(tmp_path)
    with pytest.raises(AlignXError):
        run_stage1(config, run)
        run_stage2(config, run)
