import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignx.errors import ArtifactError
from alignx.models import save
from alignx.models.fingerprint import model_sha256
from alignx.models.save import model_files, save_plain_model
from alignx.runs import folders


def test_a_saved_model_loads_bit_equal_with_its_tokenizer(load_tiny, architecture, tmp_path):
    base = load_tiny(architecture)
    assert save_plain_model(tmp_path / "model", base) == 0
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model_sha256(again) == model_sha256(base.model)
    text = "Does the apple bring luck?"
    assert AutoTokenizer.from_pretrained(tmp_path / "model")(text) == base.tokenizer(text)
    assert all(path.is_file() for path in model_files(tmp_path / "model"))


def test_the_folder_names_no_path_of_this_machine(load_tiny, tmp_path):
    base = load_tiny("llama")
    save_plain_model(tmp_path / "model", base)
    for path in (tmp_path / "model").glob("*.json"):
        assert str(tmp_path.parent) not in path.read_text(encoding="utf-8")


def test_shards_are_all_named_as_the_models_files(load_tiny, tmp_path):
    save_plain_model(tmp_path / "model", load_tiny("llama"), shard_size="50KB")
    files = model_files(tmp_path / "model")
    assert len(files) > 2
    files[-1].unlink()
    assert not all(path.is_file() for path in model_files(tmp_path / "model"))


def test_a_model_that_does_not_survive_saving_is_not_kept(load_tiny, tmp_path, monkeypatch):
    logits = iter([torch.ones(1, 2, 3), torch.full((1, 2, 3), 1.1)])
    monkeypatch.setattr(save, "_logits", lambda model, ids: next(logits))
    with pytest.raises(ArtifactError, match="model: the saved model.s logits differ by 0.1"):
        save_plain_model(tmp_path / "model", load_tiny("llama"))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_full_is_refused_before_writing(load_tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(ArtifactError, match="the disk has 0.0 GB left"):
        save_plain_model(tmp_path / "run" / "model", load_tiny("llama"))
    assert list(tmp_path.iterdir()) == []
