import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import nn

from alignx.models.layers import adapted_modules
from alignx.stage1.task_vector import TaskVector, read_task_vector
from alignx.stage1.truncated_svd import factorise, truncate
from alignx.stage1.write_adapter import write_task_vector


def _matrix(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (9, 9)])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_dropped_norm_is_what_numpy_says(shape, rank):
    dense = _matrix(*shape)
    singular = np.linalg.svd(dense.double().numpy(), compute_uv=False)
    found = truncate(dense, rank)
    assert found.squared_norm == pytest.approx((singular**2).sum(), rel=1e-9)
    assert found.squared_dropped == pytest.approx((singular[rank:] ** 2).sum(), rel=1e-5, abs=1e-10)


@pytest.mark.parametrize("rank", [7, 8, 40])
def test_factors_of_full_rank_are_the_update(rank):
    dense = _matrix(12, 7)
    found = truncate(dense, rank)
    assert found.update.a.shape == (rank, 7) and found.update.b.shape == (12, rank)
    torch.testing.assert_close(found.update.dense(), dense, rtol=1e-6, atol=1e-6)


def test_large_matrices_lose_hardly_more_than_they_must():
    """Singular values that fall slowly are the hard case for a randomised range finder."""
    dense = _matrix(600, 400) / 20 + _matrix(600, 3, seed=1) @ _matrix(3, 400, seed=2) / 20
    singular = np.linalg.svd(dense.double().numpy(), compute_uv=False)
    found = truncate(dense, 8)
    left_out = (dense - found.update.dense()).double().square().sum().item()
    assert found.squared_dropped == pytest.approx(left_out, rel=1e-6)
    assert (singular[8:] ** 2).sum() <= left_out * (1 + 1e-6) <= 1.01 * (singular[8:] ** 2).sum()


def test_large_matrices_are_truncated_to_the_same_bits_each_time():
    dense = _matrix(300, 290)
    before = torch.get_rng_state()
    one, again, other = truncate(dense, 4, seed=1), truncate(dense, 4, seed=1), truncate(dense, 4, seed=2)
    assert torch.equal(one.update.a, again.update.a) and not torch.equal(one.update.a, other.update.a)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_update_of_zeros_drops_nothing():
    found = truncate(torch.zeros(5, 4), 2)
    assert (found.squared_norm, found.squared_dropped) == (0.0, 0.0)


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
