import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignx.config import KeepConfig
from alignx.errors import ArtifactError
from alignx.models.fingerprint import model_sha256
from alignx.models.lazy import LazyBase
from alignx.runs import RunDirectory
from alignx.runs.files import read_json
from alignx.stage1.dense_vector import DenseVector
from alignx.stage1.keep import keep_artifacts
from alignx.stage1.pipeline import stage1_is_current
from alignx.stage1.task_vector import read_task_vector

ALL = KeepConfig(dense=True, copy_base=True, merged=True)


@pytest.fixture
def kept(finished_run, tmp_path):
    """Config and copy of a run with a shared expert, whose large artifacts may be made."""
    config, finished = finished_run("llama")
    shutil.copytree(finished.root, tmp_path / "run")
    keep = config.stage1.model_copy(update={"keep": ALL})
    return config.model_copy(update={"stage1": keep}), RunDirectory(tmp_path / "run")


@pytest.fixture
def made(kept):
    """The same with all of them made, dense vectors in small shards."""
    config, run = kept
    keep_artifacts(config, run, LazyBase(config, run), max_shard_bytes=2000)
    return config, run


def test_dense_vectors_are_the_adapters_updates_in_shards(made):
    config, run = made
    for name in [*config.axes, "shared"]:
        dense, factored = DenseVector(run.task_vector_folder(name)), read_task_vector(run.adapter_folder(name))
        assert sorted(dense.names()) == sorted(factored.updates)
        assert len(list(run.task_vector_folder(name).glob("*.safetensors"))) > 1
        assert dense.about["expert"] == name
        for module, update in factored.updates.items():
            assert torch.equal(dense.tensor(module), update.dense())


def test_the_kept_base_is_the_base_bit_for_bit(made):
    _, run = made
    again = AutoModelForCausalLM.from_pretrained(run.base_folder)
    assert model_sha256(again) == read_json(run.base_path)["tensors"]
    assert AutoTokenizer.from_pretrained(run.base_folder)("Why?")["input_ids"]


@pytest.mark.parametrize("axis", ["helpful", "honest"])
def test_a_merged_model_is_what_peft_merges_from_base_shared_and_axis(made, load_tiny, axis):
    _, run = made
    base = load_tiny("llama")
    for name in ("shared", axis):
        peft_model = PeftModel.from_pretrained(base.model, run.adapter_folder(name))
        base = type(base)(peft_model.merge_and_unload(), base.tokenizer, base.template, base.source)
    merged = AutoModelForCausalLM.from_pretrained(run.merged_folder(axis))
    ids = torch.tensor([base.template.encode_prompt("Why?")])
    with torch.no_grad():
        theirs, ours = base.model(ids).logits, merged(ids).logits
        untouched = load_tiny("llama").model(ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (ours - untouched).abs().max() > 0.01


def test_a_rerun_makes_nothing_again_and_does_not_load_the_base(made, capsys):
    config, run = made
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*.safetensors")}
    keep_artifacts(config, run, LazyBase(config, run))
    assert capsys.readouterr().err.count("up to date") == 4 + 1 + 3
    assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*.safetensors")} == before


def test_only_what_is_missing_is_made_again(made, capsys):
    config, run = made
    next(run.task_vector_folder("honest").glob("*.safetensors")).unlink()
    (run.merged_folder("helpful") / "model.safetensors").unlink()
    keep_artifacts(config, run, LazyBase(config, run))
    errors = capsys.readouterr().err
    assert errors.count("up to date") == 6
    assert "dense task vector honest: 0" in errors and "merged model helpful: kept" in errors
    assert (run.merged_folder("helpful") / "model.safetensors").is_file()


def test_a_retrained_expert_makes_its_artifacts_stale_and_no_others(made, capsys):
    config, run = made
    run.mark_done("train-honest", {"other": "data"})
    keep_artifacts(config, run, LazyBase(config, run))
    errors = capsys.readouterr().err
    assert "merged model honest: kept" in errors and "merged model helpful: up to date" in errors
    assert "dense task vector shared: up to date" in errors


def test_keeping_more_leaves_every_training_current(kept):
    config, run = kept
    assert stage1_is_current(config, run)


def test_the_base_is_untouched_afterwards(kept):
    config, run = kept
    lazy = LazyBase(config, run)
    before = model_sha256(lazy.base.model)
    keep_artifacts(config, run, lazy)
    assert model_sha256(lazy.base.model) == before


def test_nothing_is_kept_unasked(kept):
    config, run = kept
    plain = config.model_copy(update={"stage1": config.stage1.model_copy(update={"keep": KeepConfig()})})
    keep_artifacts(plain, run, LazyBase(plain, run))
    assert not run.base_folder.exists()
    assert not any(run.merged_folder(axis).exists() or run.task_vector_folder(axis).exists() for axis in config.axes)


def test_a_damaged_adapter_is_named_and_nothing_is_kept_of_it(kept):
    config, run = kept
    (run.adapter_folder("honest") / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError, match="adapter_model.safetensors: damaged"):
        keep_artifacts(config, run, LazyBase(config, run))
    assert not run.task_vector_folder("honest").exists()
