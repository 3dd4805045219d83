import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, lists
from safetensors.torch import load_file, save_file

from alignx.errors import ArtifactError
from alignx.stage1.dense_vector import INDEX_FILE, DenseVector, write_dense


def _tensors(widths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {f"layers.{number}.q": torch.randn(3, width, generator=generator) for number, width in enumerate(widths)}


@pytest.fixture
def written(tmp_path):
    """A folder with three updates in two shards."""
    write_dense(tmp_path / "vector", _tensors([4, 4, 4]).items(), max_shard_bytes=100)
    return tmp_path / "vector"


@given(widths=lists(integers(1, 20), min_size=1, max_size=8), max_shard_bytes=integers(1, 400))
@settings(max_examples=30)
def test_what_was_written_is_read_bit_for_bit_whatever_the_shards(tmp_path_factory, widths, max_shard_bytes):
    folder = tmp_path_factory.mktemp("dense") / "vector"
    tensors = _tensors(widths)
    write_dense(folder, tensors.items(), max_shard_bytes=max_shard_bytes)
    vector = DenseVector(folder)
    assert vector.names() == list(tensors)
    assert all(torch.equal(vector.tensor(name), tensor) for name, tensor in tensors.items())
    assert all(vector.shape(name) == tuple(tensor.shape) for name, tensor in tensors.items())
    for shard in folder.glob("*.safetensors"):
        held = load_file(shard)
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= max_shard_bytes


def test_the_layout_is_that_of_sharded_checkpoints(written):
    names = ["task_vector-00001-of-00002.safetensors", "task_vector-00002-of-00002.safetensors"]
    assert sorted(path.name for path in written.iterdir()) == sorted([*names, INDEX_FILE])
    index = json.loads((written / INDEX_FILE).read_text())
    assert index["metadata"] == {"total_size": 3 * 48, "format_version": 1}
    assert index["weight_map"] == {
        "layers.0.q.weight": names[0],
        "layers.1.q.weight": names[0],
        "layers.2.q.weight": names[1],
    }
    for key, shard in index["weight_map"].items():
        assert key in load_file(written / shard)


def test_no_more_than_one_shard_is_taken_before_it_is_written(tmp_path):
    taken = []

    def tensors():
        for name, tensor in _tensors([4] * 6).items():
            on_disk = len(list(tmp_path.rglob("*.part")))
            taken.append(len(taken) - 2 * on_disk)
            yield name, tensor

    write_dense(tmp_path / "vector", tensors(), max_shard_bytes=96)
    assert max(taken) <= 2


def test_half_precision_is_widened_exactly(tmp_path):
    tensor = torch.randn(3, 4).bfloat16()
    write_dense(tmp_path / "vector", [("q", tensor)])
    read = DenseVector(tmp_path / "vector").tensor("q")
    assert read.dtype == torch.float32
    assert torch.equal(read, tensor.float())


def test_tied_tensors_are_each_written(tmp_path):
    tensor = torch.randn(3, 4)
    write_dense(tmp_path / "vector", [("one", tensor), ("other", tensor)])
    vector = DenseVector(tmp_path / "vector")
    assert torch.equal(vector.tensor("one"), vector.tensor("other"))


def test_other_parameters_keep_their_name_and_a_weight_has_two(tmp_path):
    write_dense(tmp_path / "vector", [("q.bias", torch.ones(3)), ("q.weight", torch.ones(3, 2))])
    vector = DenseVector(tmp_path / "vector")
    assert vector.names() == ["q.bias", "q"]
    assert torch.equal(vector.tensor("q"), vector.tensor("q.weight"))
    assert vector.tensor("q.bias").shape == (3,)


def test_writing_again_replaces_and_a_failure_leaves_what_was_there(tmp_path):
    folder = tmp_path / "vector"
    write_dense(folder, _tensors([4, 4]).items(), max_shard_bytes=1)

    def breaks():
        yield "a", torch.ones(2, 2)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_dense(folder, breaks(), max_shard_bytes=1)
    assert len(DenseVector(folder).names()) == 2
    write_dense(folder, [("a", torch.ones(2, 2))])
    assert len(list(folder.iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["vector"]


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        ([], "no tensors given"),
        ([("q", torch.ones(2)), ("q.weight", torch.ones(2))], "given twice"),
        ([("q", torch.tensor([1.0, float("nan")]))], "NaN or infinity"),
    ],
)
@pytest.mark.parametrize("max_shard_bytes", [1, 1000])
def test_what_cannot_be_kept_is_refused_and_leaves_nothing(tmp_path, tensors, fault, max_shard_bytes):
    with pytest.raises(ValueError, match=fault):
        write_dense(tmp_path / "vector", tensors, max_shard_bytes=max_shard_bytes)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_holds_at_least_a_byte(tmp_path):
    with pytest.raises(ValueError, match="max_shard_bytes 0"):
        write_dense(tmp_path / "vector", [("q", torch.ones(2))], max_shard_bytes=0)


def _index(folder, **changed):
    index = json.loads((folder / INDEX_FILE).read_text())
    (folder / INDEX_FILE).write_text(json.dumps({**index, **changed}))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: (folder / INDEX_FILE).unlink(), "missing"),
        (lambda folder: (folder / INDEX_FILE).write_text("{"), "damaged"),
        (lambda folder: (folder / INDEX_FILE).write_text("[]"), "not an index"),
        (lambda folder: _index(folder, metadata={"format_version": 2}), "format version 2"),
        (lambda folder: _index(folder, weight_map={"q.weight": "../vector/escape"}), "is missing"),
        (lambda folder: next(folder.glob("*.safetensors")).unlink(), "is missing"),
    ],
)
def test_a_damaged_folder_is_refused_when_opened(written, damage, fault):
    damage(written)
    with pytest.raises(ArtifactError, match=fault):
        DenseVector(written)


def test_a_damaged_shard_or_tensor_is_refused_when_read(written):
    vector = DenseVector(written)
    with pytest.raises(ArtifactError, match="holds no update of `layers.9.q`"):
        vector.tensor("layers.9.q")
    first, second = sorted(written.glob("*.safetensors"))
    save_file({"layers.2.q.weight": torch.full((3, 4), float("inf"))}, second)
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        vector.tensor("layers.2.q")
    first.write_bytes(first.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="damaged"):
        vector.tensor("layers.0.q")
    save_file({"other": torch.ones(1)}, first)
    with pytest.raises(ArtifactError, match="damaged"):
        vector.shape("layers.0.q")
