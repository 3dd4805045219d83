"""Evaluation, start to end: comparators, judgements kept row by row, figures."""

import resource
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.data.prepare import read_splits
from alignx.data.sources import load_test_folder
from alignx.data.splits import leave_out_trained
from alignx.errors import ArtifactError, DataError
from alignx.evaluate.comparators.registry import COMPARATORS
from alignx.evaluate.figures import FigureSettings, scored_figures
from alignx.evaluate.joint import JOINT, read_joint
from alignx.evaluate.likelihood.judge import likelihood_items
from alignx.evaluate.measures import (
    ScoredPrompts,
    collect,
    mean_over_repeats,
    repeat_losses,
    repeats_of,
)
from alignx.evaluate.methods import joints, methods, neutral_mixture, sources
from alignx.evaluate.scored import Scores, judge_methods, judge_own_models, own_model_sources
from alignx.models.lazy import LazyBase
from alignx.models.precision import resolved_precision
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_json, write_json, write_jsonl
from alignx.stage1.experts import expert_updates
from alignx.stage1.extracts import encode_prompts, read_latent_space
from alignx.stage2.experts import install_experts
from alignx.stage2.mocae import Mocae, Routing
from alignx.stage2.pipeline import check_current, read_mocae, read_signatures
from alignx.stage2.whole import read_whole_experts

TEST = "test"
# Predictor -> what its probabilities are called in the rows, before `axis_probs` and `best_probs`.
READ_OUT_PREFIXES = {"alignx": "", "plain": "plain_", "plain_with_temperature": "plain_scaled_"}


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
    for comparator in config.comparators:
        COMPARATORS[comparator].make(config, run, lazy)
    base = lazy.base
    limit = min(config.evaluate.max_tokens, base.context_tokens)
    style = config.evaluate.prompt_style
    items = likelihood_items(examples, base.template, max_tokens=limit, prompt_style=style)
    space = read_latent_space(run)
    signatures = read_signatures(base, space, encode_prompts(base, examples), what="read test prompts")
    experts = read_whole_experts(config, run, base)
    also = {name: read_joint(config, run, lazy, name) for name in joints(config, run)}
    joint = expert_updates(config, run, base, JOINT) if JOINT in also and experts.run_folded else None
    folder = run.evaluation_folder(name)
    scores = Scores(config, run, folder, items)
    with install_experts(config, run, base, also=also) as gated:
        found = methods(config, run, experts, gated, mocae, signatures, joint=joint)
        others = own_model_sources(config, run, scores)
        asked = [*((method.name, method.made_from) for method in found), *others.items()]
        scores.only([scores.key(*one) for one in asked])
        judgements = judge_methods(scores, found, base, gated)
    judgements |= judge_own_models(scores, others, lazy)
    prompts = collect(mean_over_repeats(judgements))
    routing = mocae.route(signatures)
    metrics = _metrics(config, mocae, routing, signatures, prompts, left_out) | {"name": name}
    metrics["repeats"] = repeat_losses(judgements)
    metrics["made_from"] = dict(reversed(asked))  # of a method's repeats, the first
    metrics |= _judged_before(config, run, folder / "metrics.json")
    rows = _prompt_rows(config, mocae, routing, signatures, prompts)
    for repeats in repeats_of(judgements).values():
        for row, *scored in zip(rows, *repeats, strict=True):
            row.setdefault("loss_by_repeat", {})[scored[0].method] = [judgement.loss for judgement in scored]
    write_jsonl(folder / "prompts.jsonl", rows)
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


def _metrics(
    config: RunConfig,
    mocae: Mocae,
    routing: Routing,
    signatures: Tensor,
    prompts: ScoredPrompts,
    left_out: dict[str, int],
) -> dict[str, Any]:
    axes = list(config.axes)
    settings = FigureSettings(
        axes=axes,
        metric={axis: axis_config.judged_by for axis, axis_config in config.axes.items()},
        tie_tolerance=config.stage2.tie_tolerance,
        n_bins=config.evaluate.calibration_bins,
        n_draws=config.evaluate.bootstrap_draws,
        seed=config.seed,
    )
    return {
        "judge": "likelihood",
        "prompt_style": config.evaluate.prompt_style,
        "precision": resolved_precision(config.evaluate.precision),
        "model": config.model,
        "seed": config.seed,
        "left_out_because_trained": left_out,
        **scored_figures(prompts, _read_outs(mocae, routing, signatures), settings),
        "routing": _routing_summary(axes, mocae, routing, prompts),
        "environment": describe_environment(),
        "peak_gb": peak_gb(),
    }


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
    read_outs = _read_outs(mocae, routing, signatures)

    def named(row: Any) -> dict[str, float]:
        return dict(zip(axes, row.tolist(), strict=True))

    return [
        {
            "seed": config.seed,
            "prompt_hash": prompts.hashes[n],
            "axis": prompts.axes[n],
            "loss": {method: float(losses[n]) for method, losses in prompts.losses.items()},
            "pi": named(pi[n]),
            "scale": float(scale[n]),
            "known": float(routing.known[n]),
            **{
                f"{prefix}{read_out}": named(probs[n])
                for predictor, prefix in READ_OUT_PREFIXES.items()
                for read_out, probs in zip(("axis_probs", "best_probs"), read_outs[predictor], strict=True)
            },
        }
        for n in range(len(prompts.hashes))
    ]


def peak_gb() -> float:
    """Largest resident memory of this process so far, GB (10^9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
