"""A training stopped after its second checkpoint goes on from whatever is whole, to the same bits."""

import json
import shutil

import pytest

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.errors import TrainingError
from alignx.stage1.checkpoints import Checkpoints
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.train import train_adapter

SETTINGS = Stage1Config(rank=2, alpha=4, batch_size=4, precision="float32", max_tokens=96, checkpoint_steps=2)
EXAMPLES = [Example("honest", f"What is {n} plus 1?", f"It is {n + 1}, {'so ' * n}yes.") for n in range(12)]
FILES = ["weights.safetensors", "moments.safetensors", "state.json", "manifest.json"]
LAST, BEFORE = "step-00000004", "step-00000002"


class _Stopped(Exception):
    pass


def _train(base, folder, settings=SETTINGS, **changed):
    fields = {"injection_rate": 0.5, "learning_rate": 1e-2, "epochs": 2, "seed": 0, **changed}
    job = TrainingJob("honest", EXAMPLES, {"honest": "Be honest."}, **fields)
    train_adapter(base, job, settings, folder / "adapter", extra={})
    return _result(folder)


def _result(folder):
    record = json.loads((folder / "training.json").read_text())
    return {path.name: path.read_bytes() for path in (folder / "adapter").iterdir()}, record["losses"]


@pytest.fixture(scope="module")
def base(load_tiny):
    return load_tiny("llama")


def _train_until(base, folder, step, settings=SETTINGS, **changed):
    """Train and stop right after the checkpoint of a step is written."""
    with pytest.MonkeyPatch.context() as patch:
        save = Checkpoints.save

        def save_and_stop(self, state, parameters, optimizer):
            save(self, state, parameters, optimizer)
            if state.step == step:
                raise _Stopped

        patch.setattr(Checkpoints, "save", save_and_stop)
        with pytest.raises(_Stopped):
            _train(base, folder, settings, **changed)


@pytest.fixture(scope="module")
def undisturbed(base, tmp_path_factory):
    return _train(base, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def stopped(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    _train_until(base, folder, 4)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [BEFORE, LAST]
    return folder


@pytest.fixture
def copied(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def _remove(path):
    path.unlink()


def _empty(path):
    path.write_bytes(b"")


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_it_goes_on_from_the_last_checkpoint_to_the_same_bits(base, copied, undisturbed, capsys):
    assert _train(base, copied) == undisturbed
    assert "going on from step 4" in capsys.readouterr().err
    assert not (copied / "checkpoints").exists()


@pytest.mark.parametrize("damage", [_remove, _empty, _truncate, _flip_a_bit])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_last_checkpoint_is_passed_over_and_said(base, copied, undisturbed, capsys, file, damage):
    damage(copied / "checkpoints" / LAST / file)
    assert _train(base, copied) == undisturbed
    errors = capsys.readouterr().err
    assert f"{LAST}: this checkpoint cannot be used" in errors and file in errors
    assert "going on from step 2" in errors


@pytest.mark.parametrize("file", FILES)
def test_without_any_whole_checkpoint_it_starts_anew(base, copied, undisturbed, capsys, file):
    for name in (LAST, BEFORE):
        _truncate(copied / "checkpoints" / name / file)
    assert _train(base, copied) == undisturbed
    errors = capsys.readouterr().err
    assert errors.count("cannot be used") == 2 and "going on" not in errors


def test_stopped_twice_it_ends_the_same(base, tmp_path, undisturbed):
    for step in (2, 4):
        _train_until(base, tmp_path, step)
    assert _train(base, tmp_path) == undisturbed


@pytest.mark.parametrize("changed", [{"learning_rate": 2e-2}, {"seed": 1}, {"epochs": 3}])
def test_another_training_does_not_go_on_from_it(base, copied, tmp_path, capsys, changed):
    assert _train(base, copied, **changed) == _train(base, tmp_path / "fresh", **changed)
    errors = capsys.readouterr().err
    assert errors.count("belongs to a training with other data or settings") == 2 and "going on" not in errors


def test_old_checkpoints_of_another_training_do_not_push_out_new_ones(base, copied):
    _train_until(base, copied, 2, learning_rate=2e-2)
    assert [path.name for path in (copied / "checkpoints").iterdir()] == [BEFORE]


def test_no_more_than_two_are_kept(base, tmp_path):
    settings = SETTINGS.model_copy(update={"checkpoint_steps": 1})
    _train_until(base, tmp_path, 5, settings)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000005"]


def test_with_dropout_it_goes_on_to_the_same_bits_too(base, tmp_path):
    settings = SETTINGS.model_copy(update={"dropout": 0.3})
    _train_until(base, tmp_path / "stopped", 4, settings)
    assert _train(base, tmp_path / "stopped", settings) == _train(base, tmp_path / "fresh", settings)


def test_after_a_loss_that_is_not_finite_other_settings_start_anew(base, tmp_path, capsys):
    settings = SETTINGS.model_copy(update={"checkpoint_steps": 1})
    with pytest.raises(TrainingError, match="non-finite loss at step 2"):
        _train(base, tmp_path / "blown", settings, learning_rate=1e30)
    assert (tmp_path / "blown" / "checkpoints").is_dir()
    assert _train(base, tmp_path / "blown", settings) == _train(base, tmp_path / "fresh", settings)
    assert "going on" not in capsys.readouterr().err
