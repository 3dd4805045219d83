"""Original bits come from a file, not from a second copy in memory."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from alignx.errors import ArtifactError
from alignx.models.fingerprint import model_sha256
from alignx.models.fold import adapters_folded, folded
from alignx.models.gated import GatedModel
from alignx.models.layers import adapted_modules, linear_shape
from alignx.models.load import ModelSource
from alignx.models.low_rank import LowRankUpdate
from alignx.models.originals import Originals

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [50, 41, 32, 23, 14, 5]])


def gates_of(model: Any, *, ranks: tuple[int, ...] = (2, 3)) -> GatedModel:
    generator = torch.Generator().manual_seed(0)

    def updates(rank: int) -> dict[str, LowRankUpdate]:
        shapes = {name: linear_shape(module) for name, module in adapted_modules(model, "all-linear").items()}
        return {
            name: LowRankUpdate(
                torch.randn(rank, columns, generator=generator) / columns**0.5,
                torch.randn(rows, rank, generator=generator) / 4,
                0.5,
            )
            for name, (rows, columns) in shapes.items()
        }

    return GatedModel(model, {f"rank {rank}": updates(rank) for rank in ranks})


def bits(model: Any) -> dict[str, str]:
    return {name.replace(".linear.", "."): value for name, value in model_sha256(model).items()}


@pytest.fixture
def base(load_tiny):
    return load_tiny("llama")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@torch.no_grad()
def test_folded_is_gated_within_rounding(load_tiny, architecture) -> None:
    base = load_tiny(architecture)
    gated, originals = gates_of(base.model), Originals(base.model, base.source)
    for weights in (torch.tensor([0.7, -0.4]), torch.tensor([0.0, 1.3])):
        with gated.using(weights.repeat(2, 1)):
            expected = base.model(IDS).logits
        with adapters_folded(gated, weights, originals):
            found = base.model(IDS).logits
        assert (found - expected).norm() <= 1e-5 * expected.norm()
        assert (found - base.model(IDS).logits).norm() > 1e-2 * expected.norm()


def test_a_checkpoint_with_the_same_bits_is_read_again_and_nothing_is_copied(base, cache: Path) -> None:
    gated, before = gates_of(base.model), bits(base.model)
    originals = Originals(base.model, base.source)
    with adapters_folded(gated, torch.tensor([1.0, 1.0]), originals):
        assert bits(base.model) != before
    assert bits(base.model) == before
    assert originals.copied_bytes == 0 and not cache.exists()


def test_a_thousand_folds_leave_every_bit(base) -> None:
    gated, before, originals = gates_of(base.model), bits(base.model), Originals(base.model, base.source)
    for number in range(1000):
        with adapters_folded(gated, torch.tensor([number / 7, 1e4]), originals):
            pass
    assert bits(base.model) == before


def test_an_error_inside_leaves_every_bit(base) -> None:
    gated, before, originals = gates_of(base.model), bits(base.model), Originals(base.model, base.source)
    with pytest.raises(RuntimeError, match="inside"), adapters_folded(gated, torch.ones(2), originals):
        raise RuntimeError("inside")
    assert bits(base.model) == before


def test_a_base_loaded_in_another_dtype_is_written_once_to_a_file_of_ours(load_tiny, cache: Path) -> None:
    written = []
    for _ in range(2):
        base = load_tiny("llama")
        base.model.bfloat16()
        gated, before = gates_of(base.model), bits(base.model)
        originals = Originals(base.model, base.source)
        with adapters_folded(gated, torch.ones(2), originals):
            pass
        assert bits(base.model) == before and originals.copied_bytes == 0
        written.append([(path, path.stat().st_mtime_ns) for path in (cache / "alignx" / "weights").iterdir()])
    assert len(written[0]) == 1 and written[0] == written[1]


def test_a_damaged_file_of_ours_is_written_again(load_tiny, cache: Path) -> None:
    for damage in (False, True):
        base = load_tiny("llama")
        base.model.bfloat16()
        if damage:
            path = next((cache / "alignx" / "weights").iterdir())
            content = bytearray(path.read_bytes())
            content[-5] ^= 1
            path.write_bytes(content)
        gated, before, originals = gates_of(base.model), bits(base.model), Originals(base.model, base.source)
        with adapters_folded(gated, torch.ones(2), originals):
            pass
        assert bits(base.model) == before and originals.copied_bytes == 0


@pytest.mark.parametrize("source", [None, ModelSource("made here", "")])
def test_a_base_without_a_file_is_copied(base, source: ModelSource | None) -> None:
    gated, before, originals = gates_of(base.model), bits(base.model), Originals(base.model, source)
    with adapters_folded(gated, torch.ones(2), originals):
        pass
    assert bits(base.model) == before
    assert originals.copied_bytes == sum(layer.weight.nbytes for layer in gated.layers.values())


def test_where_no_file_can_be_written_the_base_is_copied_and_it_says_so(base, cache: Path, capsys) -> None:
    cache.write_text("not a folder")
    base.model.bfloat16()
    gated, before, originals = gates_of(base.model), bits(base.model), Originals(base.model, base.source)
    with adapters_folded(gated, torch.ones(2), originals):
        pass
    assert bits(base.model) == before and originals.copied_bytes > 0
    assert "cannot be written" in capsys.readouterr().err


def test_a_checkpoint_that_changes_meanwhile_is_noticed(load_tiny, tmp_path: Path) -> None:
    base = load_tiny("llama")
    base.model.save_pretrained(tmp_path / "own")
    gated, originals = gates_of(base.model), Originals(base.model, ModelSource("own", str(tmp_path / "own")))
    with pytest.raises(ArtifactError, match="changed while its weights were in use.*load the model again"):
        with adapters_folded(gated, torch.ones(2), originals):
            os.truncate(tmp_path / "own" / "model.safetensors", 1000)


def test_dense_updates_are_taken_out_from_the_file_too(base) -> None:
    before, originals = bits(base.model), Originals(base.model, base.source)
    updates = {"model.layers.0.mlp.up_proj": lambda: torch.ones(64, 32), "model.norm": lambda: torch.ones(32)}
    with folded(base.model, updates, originals):
        assert bits(base.model) != before
    assert bits(base.model) == before and originals.copied_bytes == 0


def test_layers_with_one_input_share_their_low_rank_product(base) -> None:
    gated = gates_of(base.model)
    sizes = {name.rsplit(".", 1)[-1]: layer.shared.size for name, layer in gated.layers.items()}
    assert sizes == {"q_proj": 3, "k_proj": 3, "v_proj": 3, "o_proj": 1, "gate_proj": 2, "up_proj": 2, "down_proj": 1}
