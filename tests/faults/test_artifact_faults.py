"""Every artifact of a finished run damaged in turn: one line that names it, before anything is computed from it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alignx.cli import run as command
from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.runs import RunDirectory
from alignx.runs.checksums import file_checksum
from alignx.runs.files import read_tensors, write_json, write_tensors
from alignx.stage1.extracts import read_latent_space
from alignx.stage1.pipeline import run_stage1
from alignx.stage2.pipeline import check_current, read_mocae, run_stage2
from refusals import refused

Damage = Callable[[Path], None]
ADAPTER = "stage1/harmless/adapter/adapter_model.safetensors"
ARTIFACTS = [
    "run.yaml",
    "base.json",
    "splits.json",
    "data/harmless.jsonl",
    "stage1/harmless/adapter/adapter_config.json",
    ADAPTER,
    "stage1/shared/adapter/adapter_model.safetensors",
    "stage1/harmless/training.json",
    "stage1/harmless/task_matrix.safetensors",
    "stage1/harmless/signature.safetensors",
    "stage1/latent.safetensors",
    "stage1/parameter_matrix.safetensors",
    "stage2/expert_losses.json",
    "stage2/mocae.safetensors",
    "stage2/mocae.json",
    "steps/train-harmless.json",
    "steps/mocae.json",
]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    """Flip the lowest bit of the last digit or payload byte, which leaves the file well-formed."""
    content = bytearray(path.read_bytes())
    binary = path.suffix == ".safetensors"
    at = next(n for n in range(len(content) - 1, -1, -1) if binary or chr(content[n]).isdigit())
    content[at] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture
def copied(finished_run, tmp_path: Path) -> tuple[RunConfig, RunDirectory]:
    """A finished run that may be spoilt."""
    config, run = finished_run("llama")
    return config, RunDirectory(shutil.copytree(run.root, tmp_path / "run"))


def _vouch(run: RunDirectory, step: str) -> None:
    """Let a step's record vouch for its files as they are now: what is wrong with them must be seen otherwise."""
    path = run.root / "steps" / f"{step}.json"
    record = json.loads(path.read_text())
    record["outputs"] = {name: file_checksum(run.root / name) for name in record["outputs"]}
    write_json(path, record)


@pytest.mark.parametrize("artifact", ARTIFACTS)
@pytest.mark.parametrize("damage", [_truncate, _empty, _flip], ids=["truncated", "empty", "bit-flipped"])
def test_a_damaged_artifact_is_named_before_an_answer_is_made_from_it(
    capsys, copied, artifact: str, damage: Damage
) -> None:
    root = copied[1].root
    damage(root / artifact)
    line = refused(capsys, "generate", str(root), "Why?", "--max-new-tokens", "2")
    if not artifact.startswith("steps"):
        assert artifact in line
    assert "run `alignx" in line or "; run " in line or "remove it" in line


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_every_artifact_that_is_missing_is_missed(capsys, copied, artifact: str) -> None:
    if artifact == "base.json":
        pytest.skip("written again: every adapter says which base it was trained on")
    root = copied[1].root
    (root / artifact).unlink()
    assert "run" in refused(capsys, "generate", str(root), "Why?", "--max-new-tokens", "2")


def test_stage2_makes_a_damaged_mixture_anew_to_the_same_bits(capsys, copied) -> None:
    _, run = copied
    before = run.mocae_path.read_bytes()
    _flip(run.mocae_path)
    assert command(["stage2", str(run.root)]) == 0
    assert "mocae.safetensors: is not what was written (its checksum differs); doing `mocae` again" in (
        capsys.readouterr().err
    )
    assert run.mocae_path.read_bytes() == before


def test_stage1_trains_a_damaged_expert_anew_to_the_same_bits_and_nothing_else(capsys, copied) -> None:
    config, run = copied
    before, other = (run.root / ADAPTER).read_bytes(), run.adapter_folder("honest") / "adapter_model.safetensors"
    made = other.stat().st_mtime_ns
    _flip(run.root / ADAPTER)
    run_stage1(config, run)
    run_stage2(config, run)
    check_current(config, run)
    assert (run.root / ADAPTER).read_bytes() == before
    assert other.stat().st_mtime_ns == made
    assert "mixture: up to date" in capsys.readouterr().err


def _without(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.__delitem__(name)


def _put(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.__setitem__(name, change(tensors[name]))


def _more(tensors: dict[str, torch.Tensor]) -> None:
    tensors["stray"] = torch.zeros(1)


def _nan(tensor: torch.Tensor) -> torch.Tensor:
    spoilt = tensor.clone()
    spoilt.view(-1)[0] = float("nan")
    return spoilt


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without("router_bias"), "tensor `router_bias` is missing"),
        (_without("detector.fractal.anchors"), "tensor `detector.fractal.anchors` is missing"),
        (_more, "tensor `stray` does not belong there"),
        (_put("router_weight", _nan), "tensor `router_weight` holds NaN"),
        (_put("natural.means", torch.Tensor.float), "tensor `natural.means` is torch.float32, expected torch.float64"),
        (_put("fractal.axis_ids", torch.Tensor.double), "tensor `fractal.axis_ids` is torch.float64"),
        (_put("router_weight", lambda t: t[:, 1:]), "tensor `router_weight` is (3, 15), expected 3 x 16"),
        (_put("fractal.axis_ids", lambda t: t[1:]), "tensor `fractal.axis_ids` is (47,), expected 48"),
        (_put("scales", lambda t: t[None]), "tensor `scales` is (1, 2), expected 2"),
    ],
)
def test_a_mixture_with_a_wrong_tensor_names_it(copied, change, says: str) -> None:
    _, run = copied
    tensors = read_tensors(run.mocae_path)
    change(tensors)
    write_tensors(run.mocae_path, tensors)
    _vouch(run, "mocae")
    with pytest.raises(ArtifactError) as caught:
        read_mocae(run)
    assert f"mocae.safetensors: {says}" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without("means"), "tensor `means` is missing"),
        (_without("layers"), "tensor `layers` is missing"),
        (_without("components.1"), "tensor `components.1` is missing"),
        (_more, "tensor `stray` does not belong there"),
        (_put("means", _nan), "tensor `means` holds NaN"),
        (_put("means", torch.Tensor.half), "tensor `means` is torch.float16, expected torch.float32"),
        (_put("components.1", lambda t: t[:, 1:]), "tensor `components.1` is (8, 31), expected 8 x 32"),
        (_put("layers", torch.Tensor.float), "tensor `layers` is torch.float32"),
    ],
)
def test_a_latent_space_with_a_wrong_tensor_names_it(copied, change, says: str) -> None:
    _, run = copied
    tensors = read_tensors(run.latent_path)
    change(tensors)
    write_tensors(run.latent_path, tensors)
    _vouch(run, "finish-stage1")
    with pytest.raises(ArtifactError) as caught:
        read_latent_space(run)
    assert "latent.safetensors: " in str(caught.value) and says.split("is (")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.3." in name],
            "made for another base",
        ),
        (lambda tensors: tensors.update({n: t[:, 1:] for n, t in tensors.items() if "lora_A" in n}), "updates a"),
        (_more, "not LoRA factors"),
    ],
    ids=["other depth", "other hidden size", "extra tensor"],
)
def test_an_adapter_of_another_base_says_so(capsys, copied, change, says: str) -> None:
    _, run = copied
    tensors = read_tensors(run.root / ADAPTER)
    change(tensors)
    write_tensors(run.root / ADAPTER, tensors)
    _vouch(run, "train-harmless")
    assert says in refused(capsys, "stage2", str(run.root), "--method", "ties")


def test_an_adapter_of_a_base_of_the_same_shape_says_so(capsys, copied) -> None:
    _, run = copied
    path = run.adapter_folder("harmless").parent / "training.json"
    notes = json.loads(path.read_text())
    assert len(notes["base"]) == 16
    write_json(path, notes | {"base": "0" * 16})
    _vouch(run, "train-harmless")
    line = refused(capsys, "generate", str(run.root), "Why?", "--max-new-tokens", "2")
    assert "was trained on another base than this run's (0000000000000000, not " in line


def test_an_expert_that_is_there_as_a_pickle_only_is_never_read(capsys, copied) -> None:
    _, run = copied
    folder = run.adapter_folder("harmless")
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "adapter_model.bin")
    for arguments in (["generate", str(run.root), "Why?"], ["stage2", str(run.root)]):
        line = refused(capsys, *arguments)
        assert "adapter_model.bin: is a pickle" in line and "save_pretrained" in line


@pytest.mark.parametrize(("version", "says"), [(2, "written by a newer AlignX"), (0, "written by an older AlignX")])
def test_a_mixture_of_another_layout_says_what_to_do(copied, version: int, says: str) -> None:
    _, run = copied
    settings = json.loads(run.mocae_settings_path.read_text())
    write_json(run.mocae_settings_path, settings | {"schema_version": version})
    _vouch(run, "mocae")
    with pytest.raises(ArtifactError, match=f"mocae.json: schema version {version}, {says}"):
        read_mocae(run)


def test_a_run_of_another_layout_is_neither_read_nor_written(capsys, copied) -> None:
    _, run = copied
    text = run.config_path.read_text().replace("schema_version: 1", "schema_version: 2")
    run.config_path.write_text(text)
    assert "written by a newer AlignX" in refused(capsys, "generate", str(run.root), "Why?")
    assert "pip install --upgrade alignx" in refused(capsys, "stage2", str(run.root))
    assert run.config_path.read_text() == text
