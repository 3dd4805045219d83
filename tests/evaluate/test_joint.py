"""The joint LoRA of m times the rank: trained as the joint LoRA was chosen, installed and scored beside it."""

import shutil

import pytest

from alignx.config import load_config
from alignx.data.prepare import read_splits
from alignx.errors import ConfigError
from alignx.evaluate.joint import train_joint_mr
from alignx.evaluate.likelihood.judge import likelihood_items
from alignx.evaluate.pipeline import run_evaluate
from alignx.models.fold import folded
from alignx.models.lazy import LazyBase
from alignx.models.load import load_base
from alignx.models.scoring import answer_log_probs
from alignx.runs import RunDirectory
from alignx.runs.files import read_json, read_jsonl
from alignx.stage1.experts import expert_updates
from alignx.stage1.task_vector import read_task_vector

AXES = "axes:\n  helpful: {dataset: alpaca, source: sample}\n"


@pytest.fixture(scope="module")
def evaluated(finished_run, tmp_path_factory):
    """A run evaluated with `joint_mr`: config, directory and metrics."""
    made, source = finished_run("llama")
    run = RunDirectory(tmp_path_factory.mktemp("wide") / "run")
    shutil.copytree(source.root, run.root)
    config = made.model_copy(update={"evaluate": made.evaluate.model_copy(update={"joint_mr": True})})
    return config, run, run_evaluate(config, run)


def test_it_has_m_times_the_rank_at_the_same_scale_and_setting(evaluated):
    config, run, _ = evaluated
    narrow, wide = (read_task_vector(run.adapter_folder(name)).updates for name in ("joint", "joint-mr"))
    assert narrow.keys() == wide.keys()
    for name, update in wide.items():
        assert update.a.shape[0] == update.b.shape[1] == 3 * config.stage1.rank == 3 * narrow[name].a.shape[0]
        assert update.scale == narrow[name].scale
    records = [read_json(run.adapter_folder(name).parent / "training.json") for name in ("joint", "joint-mr")]
    assert all(len({record[key] for record in records}) == 1 for key in ("learning_rate", "epochs", "examples", "seed"))
    choices = [read_json(run.adapter_folder(name).parent / "choice.json") for name in ("joint", "joint-mr")]
    assert choices[0]["chosen"] == choices[1]["chosen"] and len(choices[1]["tried"]) == 1


def test_its_row_is_the_loss_of_its_whole_update_in_the_base(evaluated):
    config, run, metrics = evaluated
    base = load_base(config.model)
    examples = [example for axis in config.axes for example in read_splits(run, axis).test]
    items = [item.target for item in likelihood_items(examples, base.template, max_tokens=config.evaluate.max_tokens)]
    with folded(base.model, expert_updates(config, run, base, "joint-mr")):
        found = answer_log_probs(base, items)
    losses = [-scores[0] / len(item.answers[0]) for scores, item in zip(found, items, strict=True)]
    rows = read_jsonl(run.evaluation_folder("test") / "prompts.jsonl")
    assert [row["loss"]["joint-mr"] for row in rows] == pytest.approx(losses, rel=1e-4)
    assert metrics["loss"]["joint-mr"]["average"] != metrics["loss"]["joint"]["average"]


def test_it_is_trained_again_only_when_its_setting_changes(evaluated, tmp_path, capsys):
    config, source, _ = evaluated
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(source.root, run.root)
    train_joint_mr(config, run, LazyBase(config, run))
    assert "joint-mr: up to date" in capsys.readouterr().err
    other = {"joint_mr_candidates": ({"learning_rate": 2e-2, "epochs": 1}, {"learning_rate": 1e-2, "epochs": 1})}
    changed = type(config).model_validate(
        {**config.model_dump(), "evaluate": {**config.evaluate.model_dump(), **other}}
    )
    train_joint_mr(changed, run, LazyBase(changed, run))
    tried = read_json(run.adapter_folder("joint-mr").parent / "choice.json")["tried"]
    assert [row["learning_rate"] for row in tried] == [2e-2, 1e-2]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("evaluate: {joint_mr: true, joint: false}", "joint_mr_candidates"),
        ("evaluate: {joint_mr: true}\nstage1: {method: full}", "no rank"),
    ],
)
def test_what_leaves_it_without_a_setting_or_a_rank_is_refused(tmp_path, settings, reason):
    path = tmp_path / "run.yaml"
    path.write_text(f"{AXES}{settings}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=reason):
        load_config(path)
