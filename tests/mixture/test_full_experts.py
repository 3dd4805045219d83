"""Fully fine-tuned experts on the whole road: trained, mixed, scored and run."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from alignx import AlignX, Dial
from alignx.config import RunConfig
from alignx.config.files import load_config, parse_config
from alignx.data.prepare import read_splits
from alignx.errors import ArtifactError
from alignx.evaluate.joint import train_joint
from alignx.evaluate.methods import methods
from alignx.evaluate.pipeline import run_evaluate
from alignx.models.fingerprint import model_sha256
from alignx.models.fold import folded
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel, load_base
from alignx.models.scoring import answer_log_probs
from alignx.runs import RunDirectory
from alignx.runs.files import read_json, read_jsonl
from alignx.stage1.dense_vector import DenseVector
from alignx.stage1.full import read_full_updates
from alignx.stage1.pipeline import run_stage1
from alignx.stage2.experts import install_experts
from alignx.stage2.pipeline import read_mocae, run_stage2, target_items
from alignx.stage2.whole import fixed_form, read_whole_experts

AXES = ("helpful", "harmless", "honest")
MERGES = ("task-arithmetic", "ties")
PROMPTS = [[5, 9, 40, 7, 300], [8, 8, 90, 41, 77, 200, 6]]
Run = tuple[RunConfig, RunDirectory]


@pytest.fixture(scope="module", params=["llama", "gemma"])
def finished(request, tiny_models, tiny_config, tmp_path_factory) -> Run:
    """A run of fully fine-tuned experts, on a base with and on one without a head of its own."""
    stage1 = {"method": "full", "learning_rate": 3e-3, "shared_expert": False, "expert_rank": 3}
    config = tiny_config(tiny_models[request.param], stage1=stage1, stage2={"merges": MERGES})
    run = RunDirectory(tmp_path_factory.mktemp(f"full-{request.param}"))
    run_stage1(config, run)
    run_stage2(config, run)
    run_evaluate(config, run)
    return config, run


@pytest.fixture
def model(finished: Run) -> AlignX:
    return AlignX.from_pretrained(finished[1].root)


def _tuned(finished: Run, weights: dict[str, float]) -> BaseModel:
    """A plain model whose weights are base + weighted task vectors, made without any of our folding."""
    config, run = finished
    base = load_base(config.model)
    parameters = dict(base.model.named_parameters())
    with torch.no_grad():
        for axis, weight in weights.items():
            vector = DenseVector(run.task_vector_folder(axis))
            for name in vector.names():
                parameters[f"{name}.weight"] += weight * vector.tensor(name)
    return base


def _last_logits(base: BaseModel, prompt: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return base.model(input_ids=torch.tensor([prompt])).logits[0, -1]


def _close(found: torch.Tensor, expected: torch.Tensor, relative: float = 1e-5) -> bool:
    return bool((found - expected).norm() <= relative * expected.norm())


@pytest.mark.parametrize("axis", AXES)
def test_one_expert_alone_is_the_fine_tuned_model(finished: Run, model: AlignX, axis: str) -> None:
    tuned = _tuned(finished, {axis: 1.0})
    dial = Dial({other: float(other == axis) for other in AXES})
    for prompt in PROMPTS:
        expected = _last_logits(tuned, prompt)
        assert _close(model.next_token_logits([prompt], dial)[0], expected)
        assert not _close(expected, _last_logits(_tuned(finished, {}), prompt), 1e-2)
    together = model.next_token_logits(PROMPTS, dial)
    assert _close(together[0], _last_logits(tuned, PROMPTS[0])) and _close(together[1], _last_logits(tuned, PROMPTS[1]))


def test_a_prompt_runs_under_the_exact_sum_of_its_mixture(finished: Run, model: AlignX) -> None:
    _, pi, scale = model._mix([PROMPTS[0]], [Dial({"honest": 3.0}, strength=0.7)])
    weights = dict(zip(AXES, (scale[0] * pi[0]).tolist(), strict=True))
    found = model.next_token_logits([PROMPTS[0]], Dial({"honest": 3.0}, strength=0.7))[0]
    assert _close(found, _last_logits(_tuned(finished, weights), PROMPTS[0]))


def test_a_batch_of_several_mixtures_runs_as_factors_and_says_so_once(finished: Run, model: AlignX, capsys) -> None:
    dials = [Dial({"helpful": 9}), Dial(strength=0)]
    mixed = model.next_token_logits(PROMPTS, dials)
    model.next_token_logits(PROMPTS, dials)
    assert capsys.readouterr().err.count("run as factors") == 1
    alone = model.next_token_logits(PROMPTS[1:], dials[1])
    assert _close(mixed[1], alone[0]) and _close(alone[0], _last_logits(_tuned(finished, {}), PROMPTS[1]))
    whole = model.next_token_logits(PROMPTS[:1], dials[0])
    assert not _close(mixed[0], whole[0])


def test_strength_zero_is_the_base_to_the_bit(finished: Run, model: AlignX) -> None:
    found = model.next_token_logits(PROMPTS, Dial(strength=0))
    model.close()
    assert torch.equal(found, model.next_token_logits(PROMPTS, Dial(strength=0)))
    assert model_sha256(model.base.model) == read_json(finished[1].base_path)["tensors"]


def test_threads_do_not_see_each_others_folds(model: AlignX) -> None:
    asked = [("Why?", Dial({axis: 30.0})) for axis in AXES] * 4
    alone = [model.generate(prompt, dial, max_new_tokens=4)[0].text for prompt, dial in asked]
    routed = model.route("Why?")[0].pi
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda ask: model.generate(ask[0], ask[1], max_new_tokens=4)[0].text, asked))
        again = list(pool.map(lambda _: model.route("Why?")[0].pi, range(12)))
    assert answers == alone and all(found == routed for found in again)


def test_experts_and_uniform_merge_are_scored_whole(finished: Run) -> None:
    config, run = finished
    rows = [row for row in read_jsonl(run.evaluation_folder("test") / "prompts.jsonl") if row["axis"] == "honest"]
    for method, weights in (("expert-harmless", {"harmless": 1.0}), ("uniform", dict.fromkeys(AXES, 1 / 3))):
        tuned = _tuned(finished, weights)
        items = target_items(tuned, read_splits(run, "honest").test, config.evaluate.max_tokens)
        nats = [
            -scores[0] / len(item.answers[0])
            for scores, item in zip(answer_log_probs(tuned, items), items, strict=True)
        ]
        assert [row["loss"][method] for row in rows] == pytest.approx(nats, rel=1e-5)


def test_stage_two_learns_from_the_losses_of_whole_experts(finished: Run) -> None:
    config, run = finished
    losses = read_json(run.root / "stage2" / "expert_losses.json")["losses"]["mix"]["helpful"]
    tuned = _tuned(finished, {"honest": 1.0})
    items = target_items(tuned, read_splits(run, "helpful").mix, config.evaluate.max_tokens)
    nats = [
        -scores[0] / len(item.answers[0]) for scores, item in zip(answer_log_probs(tuned, items), items, strict=True)
    ]
    assert [row[2] for row in losses] == pytest.approx(nats, rel=1e-5)


def test_the_run_holds_every_artifact_and_the_base_as_it_was(finished: Run) -> None:
    config, run = finished
    for axis in (*AXES, "joint"):
        names = {path.name for path in run.adapter_folder(axis).parent.iterdir()}
        assert {"adapter", "task_vector", "svd.json", "training.json"} <= names and "checkpoints" not in names
        assert read_json(run.adapter_folder(axis) / "adapter_config.json")["r"] == 3
    assert read_json(run.base_path)["tensors"] == model_sha256(load_base(config.model).model)


def test_every_method_has_a_finite_loss(finished: Run) -> None:
    metrics = read_json(finished[1].evaluation_folder("test") / "metrics.json")
    expected = {"base", *(f"expert-{axis}" for axis in AXES), "joint", "uniform", "alignx"}
    expected |= set(MERGES) | {"oracle-best-expert"}
    assert metrics["loss"].keys() == expected
    assert all(torch.isfinite(torch.tensor(row["average"])) for row in metrics["loss"].values())


def test_a_finished_run_is_left_as_it_is(finished: Run) -> None:
    config, run = finished

    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in run.root.glob("stage*/**/*") if path.is_file()}

    before = state()
    run_stage1(config, run)
    run_stage2(config, run)
    run_evaluate(config, run)
    assert state() == before


def test_an_expert_without_its_task_vector_is_trained_again(finished: Run, tmp_path: Path) -> None:
    config, run = finished
    again = RunDirectory(shutil.copytree(run.root, tmp_path / "run"))
    shutil.rmtree(again.task_vector_folder("honest"))
    with pytest.raises(ArtifactError, match="alignx stage2|no expert"):
        AlignX.from_pretrained(again.root)
    run_stage1(config, again)
    before, after = DenseVector(run.task_vector_folder("honest")), DenseVector(again.task_vector_folder("honest"))
    assert all(torch.equal(before.tensor(name), after.tensor(name)) for name in before.names())


def test_a_shared_expert_may_be_fully_fine_tuned_too(
    tiny_models: dict[str, Path], tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    stage1 = {"method": "full", "learning_rate": 3e-3, "shared_expert": True}
    evaluate = {"joint_candidates": [{"learning_rate": 3e-3, "epochs": 1}]}
    config, run = tiny_config(tiny_models["llama"], stage1=stage1, evaluate=evaluate), RunDirectory(tmp_path)
    run_stage1(config, run)
    run_stage2(config, run)
    expected = _last_logits(_tuned((config, run), {"shared": 1.0, "honest": 1.0}), PROMPTS[0])
    with AlignX.from_run(config, run, LazyBase(config, run)) as model:
        found = model.next_token_logits(PROMPTS[:1], Dial({"helpful": 0, "harmless": 0, "honest": 1}))
    assert _close(found[0], expected)
    # A joint model with the shared expert's own settings is the shared expert.
    train_joint(config, run, LazyBase(config, run))
    assert read_json(run.adapter_folder("joint").parent / "training.json")["name"] == "shared"
    assert read_full_updates(run.task_vector_folder("joint"), load_base(config.model).model)


def test_the_methods_gates_stay_shut_where_updates_are_folded(finished: Run) -> None:
    config, run = finished
    base = load_base(config.model)
    whole = read_whole_experts(config, run, base)
    with install_experts(config, run, base) as gated:
        mocae = read_mocae(run)
        found = {row.name: row for row in methods(config, run, whole, gated, mocae, torch.zeros(2, sum(mocae.widths)))}
        assert not found["expert-honest"].weights.any() and found["expert-honest"].updates
        assert found["alignx"].weights.any() and not found["alignx"].updates
        weights, updates = fixed_form(whole, gated.names, {"honest": 1.0}, 2)
        assert not weights.any()
        with folded(base.model, updates):
            assert model_sha256(base.model) != read_json(run.base_path)["tensors"]


PAPER = sorted(
    path for path in (Path(__file__).parents[2] / "configs" / "paper").glob("*.yaml") if "lora" not in path.stem
)


@pytest.mark.parametrize("path", PAPER, ids=[path.stem for path in PAPER])
def test_the_published_configs_ask_for_full_fine_tuning(path: Path) -> None:
    stage1 = load_config(path).stage1
    assert (stage1.method, stage1.shared_expert, stage1.factor_rank) == ("full", False, stage1.rank)


def test_the_published_settings_run_on_a_small_model(
    tiny_models: dict[str, Path], tiny_data: Path, tmp_path: Path
) -> None:
    """bfloat16 weights, a rate of 2e-5 and Alpaca's template; only the numbers of prompts are smaller."""
    splits = {"splits": {"train": 20, "mix": 7, "calibration": 7, "test": 6}}
    files = {"helpful": "alpaca.json", "harmless": "beavertails.jsonl", "honest": "truthfulqa.csv"}
    config = parse_config(
        {
            "preset": "paper",
            "model": str(tiny_models["mistral"]),
            "axes": {axis: {"source": str(tiny_data / file), **splits} for axis, file in files.items()},
            "stage1": {"max_tokens": 120},
            "stage2": {"dimension_neighbours": [4, 8]},
            "evaluate": {"bootstrap_draws": 100, "max_tokens": 128, "joint": False},
        },
        source="test",
    )
    run = RunDirectory(tmp_path / "run")
    run_stage1(config, run)
    run_stage2(config, run)
    metrics = run_evaluate(config, run)
    assert metrics["loss"]["alignx"]["average"] > 0
    record = json.loads((run.adapter_folder("honest").parent / "training.json").read_text())
    assert (record["method"], record["epochs"], record["learning_rate"]) == ("full", 3, 2e-5)
    assert DenseVector(run.task_vector_folder("honest")).tensor("model.layers.0.mlp.up_proj").abs().max() < 1e-3
