import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import nn

from alignx.models.layers import adapted_modules
from alignx.stage1.task_vector import TaskVector, read_task_vector
from alignx.stage1.truncated_svd import factorise
from alignx.stage1.write_adapter import write_task_vector


def _matrix(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_has_no_factors_counts_as_dropped():
    tensors = {"one": _matrix(6, 5), "norm": _matrix(5, seed=1), "two": _matrix(4, 6, seed=2)}
    modules = {"one": nn.Linear(5, 6), "two": nn.Linear(6, 4)}
    _, dropped = factorise(list(tensors), tensors.__getitem__, modules, 2)
    whole = sum(float(tensor.square().sum()) for tensor in tensors.values())
    lost = float(tensors["norm"].square().sum()) + sum(
        float((np.linalg.svd(tensors[name].double().numpy(), compute_uv=False)[2:] ** 2).sum()) for name in modules
    )
    assert dropped.total == pytest.approx(lost / whole, rel=1e-6)
    assert dropped.left_out == {"norm": pytest.approx(float(tensors["norm"].norm()))}


def test_the_summary_names_the_worst_layer_and_the_table():
    tensors = {"flat": torch.eye(6), "thin": _matrix(6, 1) @ _matrix(1, 6, seed=1), "bias": torch.ones(2)}
    modules = {"flat": nn.Linear(6, 6), "thin": nn.Linear(6, 6)}
    _, dropped = factorise(list(tensors), tensors.__getitem__, modules, 3)
    line = dropped.summary("honest", "honest/svd.json")
    assert line.startswith("honest: factors of rank 3 drop 25.0% of a layer's squared norm on average, at most 50.0%")
    assert "(flat)" in line and line.endswith("by layer: honest/svd.json") and "\n" not in line
    document = json.loads(json.dumps(dropped.document()))
    assert dropped.lines()[list(dropped.modules).index("flat")] == "  flat: norm 2.45, 50.0% dropped"
    assert document["layers"]["flat"] == {"norm": pytest.approx(6**0.5), "dropped_share": pytest.approx(0.5)}
    assert document["dropped_share"]["worst"] == ["flat", pytest.approx(0.5)]


def test_peft_reads_the_factors_as_a_lora_adapter(load_tiny, tmp_path):
    base, ids = load_tiny("llama"), torch.tensor([[5, 9, 11, 40, 7]])
    modules = adapted_modules(base.model, "all-linear")
    dense = {name: _matrix(*linear.weight.shape, seed=n) / 50 for n, (name, linear) in enumerate(modules.items())}
    updates, dropped = factorise(list(dense), dense.__getitem__, modules, 64)
    assert dropped.rank == 32 and dropped.total < 1e-9
    write_task_vector(tmp_path / "adapter", TaskVector(updates), base="llama")
    assert read_task_vector(tmp_path / "adapter", modules).updates.keys() == modules.keys()
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(load_tiny("llama").model, tmp_path / "adapter")(ids).logits
        for name, linear in modules.items():
            linear.weight += dense[name]
        ours = base.model(ids).logits
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
