"""Comparators with a model of their own: each scores what its meaning says, and leaves the base as it was."""

import shutil

import pytest
import torch
from tests.helpers.refusals import refused

from alignx.config import COMPARATOR_NAMES
from alignx.data.prepare import read_splits
from alignx.evaluate.comparators import dense_mixture, peft_models
from alignx.evaluate.comparators.gates import GateTraining
from alignx.evaluate.comparators.registry import COMPARATORS
from alignx.evaluate.pipeline import run_evaluate
from alignx.models.fingerprint import model_sha256
from alignx.models.fold import folded
from alignx.models.load import load_base
from alignx.models.scoring import answer_log_probs
from alignx.runs import RunDirectory
from alignx.runs.files import read_json, read_jsonl, read_tensors
from alignx.stage1.experts import shared_updates
from alignx.stage1.full import read_full_updates
from alignx.stage2.pipeline import run_stage2, target_items

OWN = ("x-lora", "arrow", "dense-mixture")


@pytest.fixture(scope="module")
def made(finished_run, tmp_path_factory):
    """A run with all three comparators made and scored: config, directory and metrics."""
    config, source = finished_run("llama")
    run = RunDirectory(tmp_path_factory.mktemp("peers") / "run")
    shutil.copytree(source.root, run.root)
    # Rates at which routers of tiny random models move away from even weights.
    quick = GateTraining(rates=(0.1, 1.0), passes=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peft_models, "X_LORA_TRAINING", quick)
        patch.setattr(dense_mixture, "ROUTER_TRAINING", quick)
        evaluate = config.evaluate.model_copy(update={"comparators": OWN, "joint": False})
        config = config.model_copy(update={"evaluate": evaluate})
        yield config, run, run_evaluate(config, run)


@pytest.fixture
def items(made):
    config, run, _ = made
    base = load_base(config.model)
    examples = [example for axis in config.axes for example in read_splits(run, axis).test]
    return base, target_items(base, examples, config.evaluate.max_tokens)


def _nats(items, logits_of):
    """Mean nats a target token of each item, from plain logits of one sequence at a time."""
    found = []
    for item in items:
        ids = torch.tensor([item.prompt_ids + item.answers[0]])
        with torch.no_grad():
            log_probs = logits_of(ids)[0, len(item.prompt_ids) - 1 : -1].log_softmax(dim=-1)
        targets = torch.tensor(item.answers[0])
        found.append(-float(log_probs.gather(1, targets[:, None]).mean()))
    return found


def _scored(run, name):
    return [row["loss"][name] for row in read_jsonl(run.evaluation_folder("test") / "prompts.jsonl")]


def test_x_lora_rows_are_pefts_own_forward_pass(made, items):
    from peft import XLoraConfig, get_peft_model

    config, run, _ = made
    base, targets = items
    adapters = {str(number): str(run.adapter_folder(axis)) for number, axis in enumerate(config.axes)}
    with folded(base.model, shared_updates(config, run, base)):
        base.model.config.use_cache = False
        settings = XLoraConfig(task_type="CAUSAL_LM", hidden_size=32, adapters=adapters, xlora_depth=1)
        model = get_peft_model(base.model, settings).eval()
        classifier = read_tensors(run.root / "eval" / "comparators" / "x-lora" / "classifier.safetensors")
        model.base_model.internal_xlora_classifier.load_state_dict(classifier)
        by_hand = _nats(targets, lambda ids: model(input_ids=ids).logits)
        weights = model.base_model.get_latest_scalings()
    assert _scored(run, "x-lora") == pytest.approx(by_hand, rel=1e-4)
    assert not torch.allclose(weights, torch.full_like(weights, 1 / 3), atol=1e-3)  # the classifier did learn


def test_arrow_rows_are_pefts_own_forward_pass(made, items):
    from peft import ArrowConfig
    from peft.tuners.lora import create_arrow_model

    config, run, _ = made
    base, targets = items
    paths = [str(run.adapter_folder(axis)) for axis in config.axes]
    with folded(base.model, shared_updates(config, run, base)):
        model = create_arrow_model(base.model, paths, ArrowConfig(top_k=3, rng_seed=config.seed)).eval()
        by_hand = _nats(targets, lambda ids: model(input_ids=ids).logits)
    assert _scored(run, "arrow") == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_one_hot_router_is_that_axis_fully_tuned(made, items, number):
    config, run, _ = made
    base, targets = items
    folder = run.root / "eval" / "comparators" / "dense-mixture"
    axis = list(config.axes)[number]
    tuned = read_full_updates(folder / axis / "task_vector", base.model)
    assert all(".mlp." in name for name in tuned) and any(update().abs().max() > 0 for update in tuned.values())
    with folded(base.model, tuned):
        alone = answer_log_probs(base, targets)
    with dense_mixture.install_dense_mixture(config, run, base) as mixed:
        for layer in (layer.mlp for layer in mixed.model.model.layers):
            with torch.no_grad():
                layer.router.weight.zero_()
                layer.router.bias.copy_(1e4 * torch.eye(3)[number])
        one_hot = answer_log_probs(mixed, targets)
    for found, expected in zip(one_hot, alone, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


def test_the_trained_dense_router_is_neither_even_nor_what_was_not_scored(made, items):
    config, run, _ = made
    base, targets = items
    router = read_tensors(run.root / "eval" / "comparators" / "dense-mixture" / "router.safetensors")
    assert all(tensor.abs().max() > 0 for tensor in router.values())
    with dense_mixture.install_dense_mixture(config, run, base) as mixed:
        by_hand = _nats(targets, lambda ids: mixed.model(input_ids=ids).logits)
    assert _scored(run, "dense-mixture") == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("name", OWN)
def test_the_base_is_bit_equal_afterwards_and_its_figures_beside_the_loss_are_absent(made, items, name):
    config, run, metrics = made
    base, _ = items
    before = model_sha256(base.model)
    with COMPARATORS[name].installed(config, run, base) as model:
        assert model.model is not None
    assert model_sha256(base.model) == before
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert metrics["loss"][name]["average"] > 0 and name in metrics["alignx_versus"]
    judged = metrics["likelihood"][name]
    assert "mc2" not in judged["honest"] and "safe_preferred" not in judged["harmless"] and "average" not in judged
    assert metrics["likelihood"]["alignx"]["honest"]["mc2"]["n"] == 8


def test_what_was_tried_is_on_record_and_the_best_was_chosen(made):
    _, run, _ = made
    folder = run.root / "eval" / "comparators"
    for record in (
        read_json(folder / "x-lora" / "training.json"),
        read_json(folder / "dense-mixture" / "training.json"),
        read_json(folder / "dense-mixture" / "training.json")["router"],
    ):
        best = min(record["tried"], key=record["tried"].__getitem__)
        assert len(record["tried"]) == 2 and record["learning_rate"] == float(best)
    assert read_json(folder / "arrow" / "settings.json") == {"top_k": 3, "seed": 0}


def test_a_plain_evaluation_keeps_their_rows_and_makes_nothing_again(made, capsys):
    config, run, metrics = made
    plain = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"comparators": ()})})
    again = run_evaluate(plain, run)
    errors = capsys.readouterr().err
    assert "train " not in errors and all(f"score {name}: up to date" in errors for name in OWN)
    assert again["loss"] == metrics["loss"]


def test_a_changed_expert_makes_them_stale(made, tmp_path):
    config, source, _ = made
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(source.root, run.root)
    assert all(COMPARATORS[name].made_from(config, run) for name in OWN)
    other = config.model_copy(update={"seed": 5})
    assert not any(COMPARATORS[name].made_from(other, run) for name in OWN)


def test_every_name_of_the_config_is_in_the_registry():
    assert set(COMPARATORS) == set(COMPARATOR_NAMES)
    assert all((found.made_from is None) == (found.installed is None) for found in COMPARATORS.values())


def test_an_unknown_or_unfit_comparator_is_refused(made, capsys):
    _, run, _ = made
    assert "did you mean `x-lora`" in refused(capsys, "evaluate", str(run.root), "--comparators", "xlora")


def test_scored_in_bf16_they_are_near_their_float32_rows(made, tmp_path):
    """PEFT's Arrow layer fails under autocast, so it is scored in float32 all the same."""
    config, run, _ = made
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.root, copy.root)
    evaluate = config.evaluate.model_copy(update={"precision": "bf16"})
    config = config.model_copy(update={"evaluate": evaluate})
    run_stage2(config, copy)
    run_evaluate(config, copy)
    for name in OWN:
        assert _scored(copy, name) == pytest.approx(_scored(run, name), rel=5e-2)
    assert _scored(copy, "arrow") == _scored(run, "arrow")
    assert _scored(copy, "x-lora") != _scored(run, "x-lora")
