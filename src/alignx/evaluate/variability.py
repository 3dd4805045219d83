"""How far figures move when nothing that should matter changes: precision, batch size, seed.

The same reference answers of the same test prompts are scored at float32 and bf16, one by one and in batches of 8:
the order of sums differs, so bits do. Two seeds are two runs: other splits, other starting weights; their own
evaluations are compared. Published: figures may vary by 10% with hardware.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.errors import ConfigError
from alignx.evaluate.comparison import differing
from alignx.evaluate.joint import JOINT, read_joint
from alignx.evaluate.likelihood.judge import likelihood_items
from alignx.evaluate.measures import AVERAGE
from alignx.evaluate.methods import ALIGNX, is_main, methods, sources
from alignx.evaluate.pipeline import TEST, find_test_examples, read_metrics
from alignx.models.fold import folded
from alignx.models.lazy import LazyBase
from alignx.models.scoring import answer_log_probs
from alignx.progress import notice
from alignx.runs.directory import RunDirectory
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_json, write_json
from alignx.stage1.experts import expert_updates
from alignx.stage1.extracts import encode_prompts, read_latent_space
from alignx.stage2.experts import install_experts
from alignx.stage2.pipeline import check_current, read_mocae, read_signatures
from alignx.stage2.whole import read_whole_experts

VARIABILITY = "variability"
PUBLISHED_PER_CENT = 10.0
SETTINGS = (("float32", 1), ("float32", 8), ("bf16", 1), ("bf16", 8))
DEFAULT_LIMIT = 20
Losses = dict[str, dict[str, float]]  # method -> column -> nats a target token


def run_variability(
    config: RunConfig, run: RunDirectory, *, limit: int = DEFAULT_LIMIT, beside: Path | None = None
) -> dict[str, Any]:
    """Measure the spread of every headline figure and keep it in `eval/variability/metrics.json`.

    Args:
        config: the run's config.
        run: a run directory whose Stage 2 is finished.
        limit: test prompts of each axis.
        beside: an evaluated run of the same model and axes with another seed; none: one seed only.

    Returns:
        What that file holds: `settings` (losses of each), `spread`, `seeds` (none without `beside`), `environment`.

    Raises:
        ConfigError: `beside` is no other seed of this run.
        ArtifactError: a run is not finished.
    """
    check_current(config, run)
    seeds = None if beside is None else _seeds(config, run, RunDirectory(beside))
    examples = _first(find_test_examples(config, run, None)[0], limit)
    environment = describe_environment()
    path = run.evaluation_folder(VARIABILITY) / "metrics.json"
    inputs = [sources(config, run), limit, seeds, environment]
    if run.is_done(VARIABILITY, inputs, path):
        notice("variability: up to date")
        return dict(read_json(path))
    scored = _scored(config, run, examples)
    document = {
        "limit": limit,
        "n": {axis: sum(example.axis == axis for example in examples) for axis in config.axes},
        "settings": [
            {"precision": precision, "batch_size": batch, "loss": table(examples, losses)}
            for (precision, batch), losses in zip(SETTINGS, scored, strict=True)
        ],
        "spread": spread([table(examples, losses) for losses in scored]),
        "versus": versus_spread([table(examples, losses) for losses in scored]),
        "largest_of_one_answer": largest_of_one(scored),
        "seeds": seeds,
        "published_per_cent": PUBLISHED_PER_CENT,
        "made_from": {ALIGNX: sources(config, run)[ALIGNX]},
        "environment": environment,
    }
    write_json(path, document)
    run.mark_done(VARIABILITY, inputs, path)
    return document


def read_variability(run: RunDirectory) -> dict[str, Any] | None:
    """Kept figures, or none.

    Raises:
        ArtifactError: damaged.
    """
    path = run.evaluation_folder(VARIABILITY) / "metrics.json"
    if not path.is_file():
        return None
    run.check(VARIABILITY)
    return dict(read_json(path))


def table(examples: Sequence[Example], losses: Mapping[str, Sequence[float]]) -> Losses:
    """Mean loss of every method by axis and on the average of the axes."""
    axes = list(dict.fromkeys(example.axis for example in examples))
    found: Losses = {}
    for method, values in losses.items():
        by_axis = {
            axis: float(np.mean([value for value, one in zip(values, examples, strict=True) if one.axis == axis]))
            for axis in axes
        }
        found[method] = {**by_axis, AVERAGE: float(np.mean(list(by_axis.values())))}
    return found


def spread(tables: Sequence[Losses]) -> Losses:
    """Largest minus smallest over the tables, in per cent of their mean, by method and column.

    Example:
        >>> spread([{"base": {"average": 1.9}}, {"base": {"average": 2.1}}])["base"]["average"]
        10.0
    """
    return {
        method: {column: _per_cent([one[method][column] for one in tables]) for column in columns}
        for method, columns in tables[0].items()
    }


def versus_spread(tables: Sequence[Losses]) -> dict[str, float]:
    """How far AlignX's difference to each other method moves, in percentage points, on average of the axes."""
    found = {}
    for method in tables[0]:
        if method != ALIGNX:
            gaps = [100 * (one[ALIGNX][AVERAGE] / one[method][AVERAGE] - 1) for one in tables]
            found[method] = max(gaps) - min(gaps)
    return found


def largest_of_one(scored: Sequence[Mapping[str, Sequence[float]]]) -> float:
    """Largest spread of a single answer's loss under a single method, in per cent."""
    return max(
        _per_cent(list(values))
        for method in scored[0]
        for values in zip(*(losses[method] for losses in scored), strict=True)
    )


def _per_cent(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return round(100 * (max(values) - min(values)) / abs(mean), 10) if mean else 0.0


def _first(examples: Sequence[Example], limit: int) -> list[Example]:
    kept: dict[str, list[Example]] = {}
    for example in examples:
        if len(kept.setdefault(example.axis, [])) < limit:
            kept[example.axis].append(example)
    return [example for rows in kept.values() for example in rows]


def _scored(config: RunConfig, run: RunDirectory, examples: Sequence[Example]) -> list[dict[str, list[float]]]:
    """Setting by setting, every main method's loss of every target; prompts are routed once."""
    lazy = LazyBase(config, run)
    base, mocae, space = lazy.base, read_mocae(run), read_latent_space(run)
    items = likelihood_items(examples, base.template, max_tokens=min(config.evaluate.max_tokens, base.context_tokens))
    targets = [item.target for item in items]
    signatures = read_signatures(base, space, encode_prompts(base, examples), what="read test prompts")
    experts = read_whole_experts(config, run, base)
    has_joint = config.evaluate.joint and bool(run.step_fingerprint("choose-joint"))
    also = {JOINT: read_joint(config, run, lazy)} if has_joint else {}
    joint = expert_updates(config, run, base, JOINT) if also and experts.run_folded else None
    found: list[dict[str, list[float]]] = []
    with install_experts(config, run, base, also=also) as gated:
        chosen = [
            method
            for method in methods(config, run, experts, gated, mocae, signatures, joint=joint)
            if is_main(method.name)
        ]
        for precision, batch in SETTINGS:
            found.append({})
            for method in chosen:
                with folded(base.model, method.updates) if method.updates else nullcontext():
                    log_probs = answer_log_probs(
                        base,
                        targets,
                        gated=gated,
                        weights=method.weights,
                        batch_size=batch,
                        precision=precision,
                        description=f"score {method.name}, {precision}, batch {batch}",
                    )
                found[-1][method.name] = [
                    -row[0] / max(1, len(item.answers[0])) for row, item in zip(log_probs, targets, strict=True)
                ]
    return found


def _seeds(config: RunConfig, run: RunDirectory, other: RunDirectory) -> dict[str, Any]:
    """Figures of two seeds' own evaluations, and their spread."""
    theirs = other.read_config()
    if theirs.seed == config.seed:
        raise ConfigError(
            f"--beside {other.root}: has seed {theirs.seed} as {run.root} has; give a run of the same config with "
            "another `seed`"
        )
    if theirs.model != config.model or list(theirs.axes) != list(config.axes):
        raise ConfigError(f"--beside {other.root}: has another model or other axes than {run.root}; give a like run")
    both = [read_metrics(part, TEST) for part in (run, other)]
    common = [method for method in both[0]["loss"] if method in both[1]["loss"] and is_main(method)]
    tables = [{method: one["loss"][method] for method in common} for one in both]
    changed = differing(config.model_dump(mode="json"), theirs.model_dump(mode="json"))
    return {
        "seeds": [config.seed, theirs.seed],
        "n": [one["n"] for one in both],
        "loss": tables,
        "spread": spread(tables),
        "versus": versus_spread(tables),
        "also_differing": [name for name in changed if name not in {"seed", "salt"}],
    }
