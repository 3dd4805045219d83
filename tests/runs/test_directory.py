import pytest

from alignx.errors import ArtifactError
from alignx.runs import RunDirectory
from alignx.runs.directory import fingerprint


def test_a_step_is_done_once_marked(tmp_path):
    run = RunDirectory(tmp_path)
    assert not run.is_done("train", {"seed": 0})
    run.mark_done("train", {"seed": 0})
    assert run.is_done("train", {"seed": 0})


def test_a_step_is_not_done_for_other_inputs(tmp_path):
    run = RunDirectory(tmp_path)
    run.mark_done("train", {"seed": 0})
    assert not run.is_done("train", {"seed": 1})
    assert not run.is_done("other", {"seed": 0})


def test_a_step_is_not_done_when_an_output_is_gone(tmp_path):
    run, output = RunDirectory(tmp_path), tmp_path / "out"
    run.mark_done("train", 1)
    assert not run.is_current("train", 1, output)
    output.touch()
    assert run.is_current("train", 1, output)


@pytest.mark.parametrize("content", ["{", "", "[]", "3", "{}", '{"inputs": "a", "outputs": 3}', "\x00"])
def test_a_damaged_record_is_named_and_its_step_done_again(tmp_path, capsys, content):
    run = RunDirectory(tmp_path)
    run.mark_done("train", 1)
    (tmp_path / "steps" / "train.json").write_text(content)
    with pytest.raises(ArtifactError, match="train.json: damaged"):
        run.is_current("train", 1)
    with pytest.raises(ArtifactError, match="train.json: damaged"):
        run.step_fingerprint("train")
    assert not run.is_done("train", 1)
    assert "doing `train` again" in capsys.readouterr().err
    assert not run.is_current("train", 1)


def test_a_steps_fingerprint_is_that_of_its_inputs(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.step_fingerprint("train") == ""
    run.mark_done("train", {"b": 1, "a": (2, 3)})
    assert run.step_fingerprint("train") == fingerprint({"a": [2, 3], "b": 1})


def test_fingerprints_tell_values_apart():
    assert len({fingerprint(value) for value in (1, "1", [1], {"1": 1}, 1.5, None, "é")}) == 7


def test_the_config_is_read_back(tiny_config, tmp_path):
    config, run = tiny_config("some/model", seed=3), RunDirectory(tmp_path)
    run.write_config(config, {"torch": "2"})
    assert run.read_config() == config
    assert run.read_environment() == {"torch": "2"}


def test_a_folder_that_is_not_a_run_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="not a run directory"):
        RunDirectory(tmp_path).read_config()


@pytest.mark.parametrize(
    "content", [b"", b"[", b"- a\n", b"config: 3\n", b"other: {}\n", b"config: {model: x}\n", b"\xff\xfe"]
)
def test_a_damaged_config_is_named(tmp_path, content):
    run = RunDirectory(tmp_path)
    run.config_path.write_bytes(content)
    with pytest.raises(ArtifactError, match="run.yaml: damaged") as caught:
        run.read_config()
    assert "\n" not in str(caught.value)


def test_a_step_done_anew_and_killed_is_not_vouched_for_by_its_old_record(tmp_path):
    run = RunDirectory(tmp_path)
    run.mark_done("train", "config A")
    assert not run.is_done("train", "config B")  # B starts, overwrites files, and is killed
    assert not run.is_done("train", "config A")
