"""The end-to-end step on tiny runs: which pass it keeps, what a pass may hold, and going on after a kill."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alignx.data.prepare import read_splits
from alignx.errors import TrainingError
from alignx.models.lazy import LazyBase
from alignx.runs import RunDirectory
from alignx.runs.files import read_json
from alignx.stage1.extracts import read_latent_space
from alignx.stage2 import fit, pipeline
from alignx.stage2.end_to_end import hold_out
from alignx.stage2.experts import gate_weights, install_experts
from alignx.stage2.pipeline import read_mocae, run_stage2

SCRIPT = Path(__file__).parent / "scripts" / "killed_end_to_end.py"
# Every so many changes of the file system one run is killed; 1 tries them all.
STRIDE = int(os.environ.get("ALIGNX_KILL_STRIDE", "9"))


@pytest.fixture
def train(finished_run, tmp_path, monkeypatch):
    """Runs Stage 2 again on a copy of the tiny run, with other end-to-end settings.

    The penalty is given: choosing it takes most of the time, and is tested with the logistic fit.
    """
    monkeypatch.setattr(fit, "choose_l2", lambda *arguments: 0.1)

    def again(name="run", **settings):
        config, run = finished_run("llama")
        end_to_end = config.stage2.end_to_end.model_copy(update=settings)
        config = config.model_copy(update={"stage2": config.stage2.model_copy(update={"end_to_end": end_to_end})})
        copy = RunDirectory(tmp_path / name)
        if not copy.root.exists():
            shutil.copytree(run.root, copy.root)
        run_stage2(config, copy)
        return config, copy

    return again


def record(run):
    return read_json(run.mocae_settings_path)["end_to_end"]


def test_the_last_rows_of_each_axis_are_held_out():
    ids = torch.tensor([0] * 10 + [1] * 5 + [2] * 1 + [3] * 2)
    training, validation = hold_out(ids, 0.2)
    assert validation == [8, 9, 14, 17]
    assert sorted(training + validation) == list(range(18))


def test_nothing_is_held_out_when_nothing_is_asked_for():
    assert hold_out(torch.tensor([0, 0, 1]), 0.0) == ([0, 1, 2], [])


def held_out_nats(config, run):
    """The held-out loss of a run's mixture, by the code that evaluates methods."""
    lazy, space, mocae = LazyBase(config, run), read_latent_space(run), read_mocae(run)
    mix = pipeline._split_features(config, run, lazy.base, space, "mix")
    _, rows = hold_out(mix.axis_ids, config.stage2.end_to_end.validation_share)
    examples = [example for axis in config.axes for example in read_splits(run, axis).mix]
    items = pipeline.target_items(lazy.base, [examples[row] for row in rows], 120)
    pi, scale = mocae.mix(mocae.route(mix.signatures[rows]), torch.ones(3), torch.zeros(3), torch.tensor(1.0))
    with install_experts(config, run, lazy.base) as gated:
        weights = gate_weights(gated.names, mocae.axes, pi, scale)
        return float(pipeline.target_losses(lazy.base, items, gated, weights, config, "held out").mean())


def test_the_mixture_has_the_loss_that_its_record_says(train):
    config, run = train(epochs=3)
    kept = record(run)
    assert kept["n_training"] == 18 and kept["n_validation"] == 6
    assert len(kept["validation_nats"]) == len(kept["training_losses"]) + 1
    assert kept["validation_nats"][kept["kept_pass"]] == min(kept["validation_nats"])
    assert kept["kept_pass"] > 0, "this run's experts differ enough to learn from"
    assert held_out_nats(config, run) == pytest.approx(min(kept["validation_nats"]), rel=1e-5)


def test_it_stops_when_the_held_out_loss_no_longer_falls(train):
    _, run = train(epochs=9, learning_rate=8.0, patience=2, kl_weight=0.0)
    kept = record(run)
    assert kept["stopped_early"] and len(kept["training_losses"]) == kept["kept_pass"] + 2 < 9


def test_training_that_only_ruins_it_leaves_the_warm_start(train):
    _, run = train(epochs=9, learning_rate=1.0, patience=2, entropy_weight=1e3)
    kept, mocae = record(run), read_mocae(run)
    warm = read_mocae(train("warm", enabled=False)[1])
    assert kept["kept_pass"] == 0 and kept["stopped_early"] and len(kept["training_losses"]) == 2
    assert mocae.strength == 1.0
    assert torch.equal(mocae.mixture_head.weight, warm.mixture_head.weight)
    assert torch.equal(mocae.mixture_head.bias, warm.mixture_head.bias)


def test_without_held_out_prompts_the_last_pass_is_kept(train):
    _, run = train(epochs=2, validation_share=0.0)
    kept = record(run)
    assert kept["kept_pass"] == 2 and kept["validation_nats"] == [] and kept["n_training"] == 24


def test_numbers_that_leave_the_finite_ones_are_an_error_of_ours(train):
    with pytest.raises(TrainingError, match="end to end: non-finite"):
        train(epochs=2, learning_rate=1e200, kl_weight=0.0)


@pytest.mark.parametrize("tokens", [1, 150])
def test_how_a_step_is_split_into_passes_does_not_change_it(train, tokens):
    _, whole = train("whole", micro_batch_tokens=10**6)
    _, split = train("split", micro_batch_tokens=tokens)
    before, after = read_mocae(whole), read_mocae(split)
    assert record(whole)["kept_pass"] == record(split)["kept_pass"]
    torch.testing.assert_close(after.mixture_head.weight, before.mixture_head.weight, rtol=1e-6, atol=1e-6)
    assert after.strength == pytest.approx(before.strength, rel=1e-6)
    nats = [torch.tensor(record(run)["validation_nats"]) for run in (whole, split)]
    torch.testing.assert_close(nats[1], nats[0], rtol=1e-6, atol=0)


def test_no_pass_holds_more_tokens_than_allowed(train, monkeypatch):
    seen = []
    real = pipeline.train_end_to_end.__globals__["mean_target_nats"]

    def counted(model, batch):
        seen.append(batch.input_ids.shape)
        return real(model, batch)

    monkeypatch.setitem(pipeline.train_end_to_end.__globals__, "mean_target_nats", counted)
    train(micro_batch_tokens=200)
    assert seen and all(rows == 1 or rows * width <= 200 for rows, width in seen)
    assert any(rows > 1 for rows, _ in seen)


@pytest.mark.timeout(300)
def test_killed_at_any_change_of_the_file_system_and_run_again(finished_run, tmp_path):
    config, run = finished_run("llama")
    settings = config.stage2.end_to_end.model_copy(update={"epochs": 3, "checkpoint_steps": 2})
    config = config.model_copy(update={"stage2": config.stage2.model_copy(update={"end_to_end": settings})})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    words = [tmp_path, run.root, tmp_path / "config.json", STRIDE]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names = ("stage2/mocae.safetensors", "stage2/mocae.json", "steps/mocae.json")
    undisturbed = {name: (tmp_path / "undisturbed" / name).read_bytes() for name in names}
    killed = [path for path in tmp_path.iterdir() if path.name.isdigit()]
    assert len(killed) >= 4
    for path in killed:
        assert {name: (path / name).read_bytes() for name in names} == undisturbed, f"killed at change {path.name}"
        assert not (path / "stage2" / "checkpoint").exists()
    assert done.stderr.count("going on from step") >= len(killed) // 2


def test_a_damaged_checkpoint_is_passed_over(train, tmp_path, monkeypatch, capsys):
    _, whole = train("whole", epochs=3, checkpoint_steps=1)
    state = pipeline.EndToEndCheckpoint

    class Killed(Exception):
        pass

    class Stopping(state):
        def save(self, *arguments):
            super().save(*arguments)
            if arguments[0].step == 5:
                raise Killed

    monkeypatch.setattr(pipeline, "EndToEndCheckpoint", Stopping)
    with pytest.raises(Killed):
        train("killed", epochs=3, checkpoint_steps=1)
    monkeypatch.setattr(pipeline, "EndToEndCheckpoint", state)
    (file,) = (tmp_path / "killed/stage2/checkpoint").glob("step-*")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(bytes(content))
    _, again = train("killed", epochs=3, checkpoint_steps=1)
    assert "cannot be used" in capsys.readouterr().err
    assert again.mocae_path.read_bytes() == whole.mocae_path.read_bytes()
