import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, lists

from alignx.models.layers import adapted_modules
from alignx.models.low_rank import LowRankUpdate
from alignx.stage1.task_vector import TaskVector, add, read_task_vector
from alignx.stage1.write_adapter import write_task_vector


def _vector(ranks, scales, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TaskVector(
        {
            f"layers.{number}.q": LowRankUpdate(
                torch.randn(rank, 5, generator=generator), torch.randn(6, rank, generator=generator), scale
            )
            for number, (rank, scale) in enumerate(zip(ranks, scales, strict=True))
        }
    )


@given(ranks=lists(integers(1, 4), min_size=1, max_size=4), scale=floats(-3, 3), seed=integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_ranks_and_scales_of_every_module_come_back_in_one_alpha_and_r(tmp_path_factory, ranks, scale, seed):
    folder = tmp_path_factory.mktemp("written") / "adapter"
    vector = _vector(ranks, [scale * (1 + number) for number in range(len(ranks))], seed)
    write_task_vector(folder, vector)
    read = read_task_vector(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["r"] == settings["lora_alpha"] == max(ranks)
    for name, update in vector.updates.items():
        torch.testing.assert_close(read.updates[name].dense(), update.dense(), rtol=1e-5, atol=1e-5)


def test_the_config_names_the_base_and_every_module_in_full_and_no_path(tmp_path):
    write_task_vector(tmp_path / "adapter", _vector([2, 1], [1, 1]), base="owner/model", about={"operation": "add"})
    settings = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "owner/model"
    assert sorted(settings["target_modules"]) == ["layers.0.q", "layers.1.q"]
    assert json.loads((tmp_path / "adapter/task_vector.json").read_text()) == {"operation": "add"}
    assert str(tmp_path) not in (tmp_path / "adapter/adapter_config.json").read_text()


@pytest.mark.parametrize(
    ("vector", "fault"),
    [
        (TaskVector({}), "no modules"),
        (_vector([1], [float("nan")]), "NaN"),
        (_vector([1], [float("inf")]), "NaN or inf"),
    ],
)
def test_what_cannot_be_kept_leaves_nothing(tmp_path, vector, fault):
    with pytest.raises(ValueError, match=fault):
        write_task_vector(tmp_path / "adapter", vector)
    assert list(tmp_path.iterdir()) == []


def test_peft_loads_a_written_sum_as_its_own_exact_merge(load_tiny, finished_run, tmp_path):
    from peft import PeftModel

    config, run = finished_run("llama")
    base = load_tiny("llama")
    axes, weights = list(config.axes), [0.7, -0.4, 1.2]
    modules = adapted_modules(base.model, config.stage1.target_modules)
    vectors = {axis: read_task_vector(run.adapter_folder(axis), modules) for axis in axes}
    write_task_vector(tmp_path / "sum", add(list(vectors.values()), weights))

    model = PeftModel.from_pretrained(base.model, run.adapter_folder(axes[0]), adapter_name=axes[0])
    for axis in axes[1:]:
        model.load_adapter(run.adapter_folder(axis), adapter_name=axis)
    model.add_weighted_adapter(axes, weights, "cat", combination_type="cat")
    result = model.load_adapter(tmp_path / "sum", adapter_name="ours")
    assert not result.unexpected_keys
    wrapped = {
        name for name, module in model.base_model.model.named_modules() if "ours" in getattr(module, "lora_A", {})
    }
    assert wrapped == set(modules)
    for name in modules:
        layer = model.base_model.model.get_submodule(name)
        dense = sum(w * vectors[axis].updates[name].dense() for w, axis in zip(weights, axes, strict=True))
        torch.testing.assert_close(layer.get_delta_weight("ours"), dense, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer.get_delta_weight("ours"), layer.get_delta_weight("cat"), rtol=1e-5, atol=1e-5)
