import json
import shutil

import pytest
import torch

from alignx.errors import ModelError
from alignx.models.load import load_base, resolve_model
from alignx.models.presets import MODEL_PRESETS


@pytest.fixture
def folder(tiny_models, tmp_path):
    """A copy of the model without a chat template, to be spoilt."""
    return shutil.copytree(tiny_models["mistral"], tmp_path / "model")


def _edit(path, **changed):
    document = json.loads(path.read_text())
    document.update(changed)
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def _forget(folder, *tokens):
    _edit(folder / "tokenizer_config.json", **dict.fromkeys(tokens))
    if (folder / "special_tokens_map.json").exists():
        _edit(folder / "special_tokens_map.json", **dict.fromkeys(tokens))


def test_a_loaded_base_is_frozen_and_can_pad(load_tiny, architecture):
    base = load_tiny(architecture)
    assert not base.model.training and not any(p.requires_grad for p in base.model.parameters())
    assert base.pad_token_id == 2 and base.context_tokens == 128
    assert base.template.style == ("chat" if architecture in {"llama", "gemma"} else "alpaca")


def test_the_dtype_is_as_asked(tiny_models):
    assert load_base(str(tiny_models["llama"]), dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_local_folder_is_known_by_its_name_alone(tiny_models):
    source = resolve_model(str(tiny_models["llama"]))
    assert (source.identity, source.hub_id) == ("llama", "")


def test_a_model_without_a_pad_token_pads_with_its_end_token(folder):
    _forget(folder, "pad_token")
    base = load_base(str(folder))
    assert base.pad_token_id == base.tokenizer.eos_token_id == 1


def test_a_model_without_pad_and_end_token_is_refused(folder):
    _forget(folder, "pad_token", "eos_token")
    with pytest.raises(ModelError, match="neither a pad nor an end token"):
        load_base(str(folder))


def test_a_model_without_an_end_token_is_refused(folder):
    _forget(folder, "eos_token")
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        load_base(str(folder))


def test_chat_without_a_template_is_refused(folder):
    with pytest.raises(ModelError, match="no chat template"):
        load_base(str(folder), template="chat")


@pytest.mark.parametrize("name", ["no-such-model", "./no/such", "/no/such/folder", "a/b/c", ""])
def test_an_unknown_name_lists_the_presets(name):
    with pytest.raises(ModelError, match="no such folder and not a hub id.*smollm2-135m"):
        resolve_model(name)


def test_a_missing_gguf_file_is_named():
    with pytest.raises(ModelError, match="absent.gguf"):
        resolve_model("absent.gguf")


@pytest.mark.parametrize("spoil", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_model_is_a_model_error_of_one_line(folder, spoil):
    (folder / spoil).write_bytes(b"{")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_base(str(folder))
    assert "\n" not in str(caught.value)


def test_the_four_published_bases_are_presets_with_the_alpaca_template():
    hub = {name: preset.hub_id for name, preset in MODEL_PRESETS.items() if preset.template == "alpaca"}
    assert hub == {
        "llama-2-7b": "meta-llama/Llama-2-7b-hf",
        "mistral-7b": "mistralai/Mistral-7B-v0.1",
        "gemma-7b": "google/gemma-7b",
        "deepseek-7b": "deepseek-ai/deepseek-llm-7b-base",
    }
