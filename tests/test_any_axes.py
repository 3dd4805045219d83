"""Axes come from the config alone: one, two or four of them, the user's own among them, run from data to report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignx.config import RunConfig
from alignx.runs import RunDirectory
from alignx.runs.files import read_tensors
from alignx.stage2.pipeline import read_mocae
from alignx.workflow import run_all

SPLITS = {"train": 16, "mix": 8, "calibration": 8, "test": 8}
OWN = {
    "concise": {
        "dataset": "pairs",
        "source": "concise.csv",
        "columns": {"prompt": "question", "response": "answer"},
        "instruction": "Be concise.",
        "metric": "loss",
        "splits": SPLITS,
    },
    "polite": {
        "dataset": "preference",
        "source": "polite.jsonl",
        "instruction": "Be polite.",
        "metric": "safe_preferred",
        "splits": SPLITS,
    },
}


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own files for two axes."""
    folder = tmp_path_factory.mktemp("own")
    lines = [f"How many wheels has cart {n}?,It has {n}." for n in range(40)]
    (folder / "concise.csv").write_text("question,answer\n" + "\n".join(lines) + "\n", encoding="utf-8")
    rows = [
        {"prompt": f"Tell guest {n} to wait.", "chosen": f"Please wait, guest {n}.", "rejected": f"Wait, {n}!"}
        for n in range(40)
    ]
    (folder / "polite.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "names",
    [("helpful", "concise", "harmless", "polite"), ("concise", "honest"), ("polite",)],
    ids=lambda names: f"{len(names)} axes",
)
def test_a_run_has_as_many_axes_as_its_config_names(
    names: tuple[str, ...],
    own_data: Path,
    tmp_path: Path,
    tiny_models: dict[str, Path],
    tiny_config: Callable[..., RunConfig],
) -> None:
    document: dict[str, Any] = tiny_config(tiny_models["llama"]).model_dump(mode="json")
    axes = {name: OWN.get(name) or document["axes"][name] for name in names}
    document["evaluate"]["joint"] = len(names) > 2  # scored once is enough
    config = RunConfig.model_validate({**document, "axes": axes})
    metrics = run_all(config, tmp_path, data_dir=own_data)

    run = RunDirectory(tmp_path)
    width = sum(len(block) for name, block in read_tensors(run.latent_path).items() if name.startswith("components."))
    assert read_tensors(run.root / "stage2" / "mocae.safetensors")["router_weight"].shape == (len(names), width)
    assert list(read_mocae(run).axes) == list(names)
    for name in names:
        assert (run.adapter_folder(name) / "adapter_model.safetensors").is_file()
        assert read_tensors(run.signature_path(name))["signature"].shape == (16, width)
    assert metrics["n"] == {**dict.fromkeys(names, 8), "average": 8 * len(names)}
    assert metrics["metric"] == {name: config.axes[name].judged_by for name in names}
    for name, figure in metrics["metric"].items():
        found = metrics["loss"]["alignx"] if figure == "loss" else metrics["likelihood"]["alignx"][name]
        assert (name if figure == "loss" else figure) in found
    # A loss is not a percentage, so figures that hold one have no average.
    assert ("average" in metrics["likelihood"]["alignx"]) == ("loss" not in metrics["metric"].values())
    for page in ("report.html", "report.md"):
        assert all(name in (tmp_path / page).read_text(encoding="utf-8") for name in names)
