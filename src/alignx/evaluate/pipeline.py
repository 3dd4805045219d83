"""Evaluation, start to end: comparators, judgements kept row by row, figures."""

import resource
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.data.prepare import read_splits
from alignx.data.sources import load_test_folder
from alignx.data.splits import leave_out_trained
from alignx.errors import ArtifactError, DataError
from alignx.evaluate.joint import JOINT, read_joint, train_joint
from alignx.evaluate.likelihood import CHAT, Judgement, LikelihoodItem, judge, likelihood_items
from alignx.evaluate.measures import (
    ScoredPrompts,
    calibration_table,
    collect,
    likelihood_table,
    loss_table,
    own_expert_losses,
    relative_difference,
)
from alignx.evaluate.methods import ALIGNX, Method, expert_method, methods, neutral_mixture, sources
from alignx.models.fold import folded
from alignx.models.gated import GatedModel
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.models.precision import resolved_precision
from alignx.models.scoring import answer_log_probs
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_json, read_jsonl, write_json, write_jsonl
from alignx.stage1.experts import expert_updates
from alignx.stage1.extracts import encode_prompts, read_latent_space
from alignx.stage2.experts import install_experts
from alignx.stage2.mocae import Mocae, Routing
from alignx.stage2.pipeline import check_current, read_mocae, read_signatures
from alignx.stage2.whole import read_whole_experts

TEST = "test"


def run_evaluate(
    config: RunConfig, run: RunDirectory, *, test_data: Path | None = None, lazy: LazyBase | None = None
) -> dict[str, Any]:
    """Score every method of a run on its test split, or on another folder's rows.

    Args:
        config: the run's config.
        run: a run directory whose Stage 2 is finished.
        test_data: folder in the training schemas; all its rows are test data, but for prompts that a training split
            of the run holds, which are left out and counted.
        lazy: the base, shared with other stages; none loads its own.

    Returns:
        What `metrics.json` holds.

    Raises:
        AlignXError: of the step that could not be done.
    """
    lazy = lazy or LazyBase(config, run)
    mocae = read_mocae(run)
    check_current(config, run)
    examples, left_out = find_test_examples(config, run, test_data)
    name = evaluation_folder_name(test_data)
    if config.evaluate.joint:
        train_joint(config, run, lazy)
    base = lazy.base
    limit = min(config.evaluate.max_tokens, base.context_tokens)
    style = config.evaluate.prompt_style
    items = likelihood_items(examples, base.template, max_tokens=limit, prompt_style=style)
    space = read_latent_space(run)
    signatures = read_signatures(base, space, encode_prompts(base, examples), what="read test prompts")
    experts = read_whole_experts(config, run, base)
    also = {JOINT: read_joint(config, run, lazy)} if config.evaluate.joint else {}
    joint = expert_updates(config, run, base, JOINT) if also and experts.run_folded else None
    folder = run.evaluation_folder(name)
    with install_experts(config, run, base, also=also) as gated:
        found = methods(config, run, experts, gated, mocae, signatures, joint=joint)
        judgements = _judge_all(config, run, found, items, base, gated, folder)
    prompts = collect(judgements)
    routing = mocae.route(signatures)
    metrics = _metrics(config, mocae, routing, signatures, prompts, left_out) | {"name": name}
    metrics |= _judged_before(config, run, folder / "metrics.json")
    write_jsonl(folder / "prompts.jsonl", _prompt_rows(config, mocae, routing, signatures, prompts))
    write_json(folder / "metrics.json", metrics)
    run.mark_done(f"evaluate-{name}", {}, folder / "prompts.jsonl", folder / "metrics.json")
    return metrics


def evaluation_folder_name(test_data: Path | None) -> str:
    """Name of an evaluation: `test`, or on another folder the folder's own and a few digits of its path."""
    if test_data is None:
        return TEST
    resolved = test_data.resolve()
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in resolved.name)
    return f"{plain or 'data'}-{fingerprint(str(resolved))[:6]}"


def read_metrics(run: RunDirectory, name: str = TEST) -> dict[str, Any]:
    """An evaluation's figures.

    Raises:
        ArtifactError: it was not made, or is damaged.
    """
    path = run.evaluation_folder(name) / "metrics.json"
    if not path.is_file():
        raise ArtifactError(f"{run.root}: not evaluated yet; run `alignx evaluate {run.root}`")
    run.check(f"evaluate-{name}")
    metrics: dict[str, Any] = read_json(path)
    return metrics


def _judged_before(config: RunConfig, run: RunDirectory, path: Path) -> dict[str, Any]:
    """Figures of the judges from an earlier evaluation, where every method they speak of is still the same."""
    judged = read_json(path).get("judges") if path.is_file() else None
    if judged is None:
        return {}
    known = sources(config, run)
    return {"judges": judged} if judged["made_from"].items() <= known.items() else {}


def find_test_examples(
    config: RunConfig, run: RunDirectory, test_data: Path | None
) -> tuple[list[Example], dict[str, int]]:
    """Test examples of all axes: the run's own, or all rows of a folder that it was not trained on.

    Returns:
        The examples, and axis -> rows left out because a training split holds their prompt.

    Raises:
        DataError: nothing in the folder fits, or everything was trained on.
    """
    if test_data is None:
        return [example for axis in config.axes for example in read_splits(run, axis).test], {}
    splits = {axis: record["splits"] for axis, record in read_json(run.splits_path)["axes"].items()}
    examples: list[Example] = []
    left_out: dict[str, int] = {}
    for axis, axis_config in config.axes.items():
        found = load_test_folder(axis, axis_config, test_data)
        kept, left_out[axis] = leave_out_trained(found, splits)
        notice(f"{axis}: {len(kept)} test prompts; left out {left_out[axis]} that this run has trained on")
        if not kept:
            raise DataError(f"--test-data {test_data}: every prompt of axis `{axis}` was trained on; give other data")
        examples += kept
    return examples, left_out


def _judge_all(
    config: RunConfig,
    run: RunDirectory,
    found: Sequence[Method],
    items: Sequence[LikelihoodItem],
    base: BaseModel,
    gated: GatedModel,
    folder: Path,
) -> dict[str, list[Judgement]]:
    """Judgements of every method; those kept from before with the same fingerprint are not made again."""
    path, step = folder / "judgments.jsonl", f"judge-{folder.name}"
    try:
        run.check(step)
        kept = _kept_judgements(path)
    except ArtifactError as error:
        notice(f"{str(error).partition('; ')[0]}; judging again")
        kept = {}
    shown = [
        [asdict(item.example), *(tokens for part in item.parts for tokens in (part.prompt_ids, part.answers))]
        for item in items
    ]
    style = config.evaluate.prompt_style
    asked = fingerprint([shown, resolved_precision(config.evaluate.precision), *([] if style == CHAT else [style])])
    # A part is scored with its item's mixture: routing has seen the prompt itself, whatever stands before it here.
    of_part = [number for number, item in enumerate(items) for _ in item.parts]
    parts = [part for item in items for part in item.parts]
    keys = {method.name: fingerprint([asked, method.name, method.made_from]) for method in found}
    judgements = {name: kept[key] for name, key in keys.items() if len(kept.get(key, ())) == len(items)}
    for method in found:
        if method.name in judgements:
            notice(f"score {method.name}: up to date")
        else:
            with folded(base.model, method.updates) if method.updates else nullcontext():
                log_probs = answer_log_probs(
                    base,
                    parts,
                    gated=gated,
                    weights=None if method.weights is None else method.weights[of_part],
                    batch_size=config.evaluate.batch_size,
                    precision=config.evaluate.precision,
                    description=f"score {method.name}",
                )
            scores: list[list[float]] = [[] for _ in items]
            for number, found_scores in zip(of_part, log_probs, strict=True):
                scores[number] += found_scores
            judgements[method.name] = [
                judge(method.name, item, of_item) for item, of_item in zip(items, scores, strict=True)
            ]
            write_jsonl(path, [row.row(keys[name]) for name in keys if name in judgements for row in judgements[name]])
            run.mark_done(step, {}, path)
    return {method.name: judgements[method.name] for method in found}


def _kept_judgements(path: Path) -> dict[str, list[Judgement]]:
    kept: dict[str, list[Judgement]] = {}
    for row in read_jsonl(path) if path.is_file() else []:
        try:
            kept.setdefault(row.pop("key"), []).append(Judgement(**row))
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: a row is damaged ({error}); remove the file and evaluate again") from error
    return kept


def _metrics(
    config: RunConfig,
    mocae: Mocae,
    routing: Routing,
    signatures: Tensor,
    prompts: ScoredPrompts,
    left_out: dict[str, int],
) -> dict[str, Any]:
    draws = {"n_draws": config.evaluate.bootstrap_draws, "seed": config.seed}
    axes = list(config.axes)
    metric = {axis: axis_config.judged_by for axis, axis_config in config.axes.items()}
    expert_losses = np.stack([prompts.losses[expert_method(axis)] for axis in axes], axis=1)
    loss, loss_interval = loss_table(_with_oracle(prompts, expert_losses), **draws)
    ours = prompts.losses[ALIGNX]
    calibration = calibration_table(
        _read_outs(mocae, routing, signatures),
        np.array([axes.index(axis) for axis in prompts.axes]),
        expert_losses,
        tie_tolerance=config.stage2.tie_tolerance,
        n_bins=config.evaluate.calibration_bins,
        **draws,
    )
    return {
        "judge": "likelihood",
        "prompt_style": config.evaluate.prompt_style,
        "precision": resolved_precision(config.evaluate.precision),
        "model": config.model,
        "seed": config.seed,
        "n": {axis: prompts.axes.count(axis) for axis in axes} | {"average": len(prompts.axes)},
        "left_out_because_trained": left_out,
        "loss": loss,
        "loss_interval": loss_interval,
        "regret": relative_difference(prompts, ours, own_expert_losses(prompts), **draws),
        "alignx_versus": {
            method: relative_difference(prompts, ours, losses, **draws)
            for method, losses in prompts.losses.items()
            if method != ALIGNX
        },
        "metric": metric,
        "likelihood": likelihood_table(prompts, metric, **draws),
        **{
            measure: {
                question: {predictor: figures[measure] for predictor, figures in by_predictor.items()}
                for question, by_predictor in calibration.items()
            }
            for measure in ("ece", "brier", "log_loss", "accuracy")
        },
        "calibration": calibration,
        "routing": _routing_summary(axes, mocae, routing, prompts),
        "environment": describe_environment(),
        "peak_gb": peak_gb(),
    }


def _with_oracle(prompts: ScoredPrompts, expert_losses: np.ndarray[Any, np.dtype[np.float64]]) -> ScoredPrompts:
    """Adds the expert that is best on each prompt's own target: a bound that no router can know."""
    losses = {**prompts.losses, "oracle-best-expert": expert_losses.min(axis=1)}
    return ScoredPrompts(prompts.hashes, prompts.axes, losses, prompts.judgements)


def _read_outs(mocae: Mocae, routing: Routing, signatures: Tensor) -> dict[str, tuple[Any, Any]]:
    plain = mocae.plain_logits(signatures)
    own, best = mocae.plain_temperatures
    return {
        "alignx": (routing.axis_probs.numpy(), routing.best_probs.numpy()),
        "plain": (plain.softmax(dim=1).numpy(), plain.softmax(dim=1).numpy()),
        "plain_with_temperature": ((plain / own).softmax(dim=1).numpy(), (plain / best).softmax(dim=1).numpy()),
    }


def _routing_summary(axes: list[str], mocae: Mocae, routing: Routing, prompts: ScoredPrompts) -> dict[str, Any]:
    pi, scale = neutral_mixture(mocae, routing)
    of = torch.tensor([axes.index(axis) for axis in prompts.axes])
    predicted = routing.axis_probs.argmax(dim=1)
    confusion = torch.zeros(len(axes), len(axes), dtype=torch.long)
    confusion.index_put_((of, predicted), torch.ones_like(of), accumulate=True)
    return {
        "mean_pi": {
            axis: dict(zip(axes, pi[of == number].mean(dim=0).tolist(), strict=True))
            for number, axis in enumerate(axes)
        },
        "mean_scale": float(scale.mean()),
        "learned_strength": mocae.strength,
        "coefficients": dict(zip(("router", "fractal", "natural"), mocae.coefficients.tolist(), strict=True)),
        "confusion": confusion.tolist(),
        "known": float(routing.known.mean()),
        "foreign_auroc_on_development_set": list(mocae.detector.auroc),
    }


def _prompt_rows(
    config: RunConfig, mocae: Mocae, routing: Routing, signatures: Tensor, prompts: ScoredPrompts
) -> list[dict[str, Any]]:
    pi, scale = neutral_mixture(mocae, routing)
    axes = list(config.axes)
    plain = mocae.plain_logits(signatures).softmax(dim=1)

    def named(row: Tensor) -> dict[str, float]:
        return dict(zip(axes, row.tolist(), strict=True))

    return [
        {
            "seed": config.seed,
            "prompt_hash": prompts.hashes[n],
            "axis": prompts.axes[n],
            "loss": {method: float(losses[n]) for method, losses in prompts.losses.items()},
            "axis_probs": named(routing.axis_probs[n]),
            "best_probs": named(routing.best_probs[n]),
            "pi": named(pi[n]),
            "scale": float(scale[n]),
            "known": float(routing.known[n]),
            "plain_probs": named(plain[n]),
        }
        for n in range(len(prompts.hashes))
    ]


def peak_gb() -> float:
    """Largest resident memory of this process so far, GB (10^9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
