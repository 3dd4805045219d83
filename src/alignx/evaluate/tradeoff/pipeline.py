"""`alignx tradeoff`, start to end: sweep the dial over a run's test prompts, score every setting, keep the figures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.data.prepare import read_splits
from alignx.evaluate.joint import JOINT, JOINT_MR, read_joint
from alignx.evaluate.likelihood.judge import likelihood_items
from alignx.evaluate.methods import ALIGNX, Method, joints, methods, sources
from alignx.evaluate.tradeoff.figures import tradeoff_figures
from alignx.evaluate.tradeoff.scoring import Mixture, PromptScore, Scorer, mean_scores
from alignx.evaluate.tradeoff.settings import DIAL_SHARES, Setting, dial_weights, swept_settings
from alignx.models.gated import GatedModel
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_json, write_json, write_jsonl
from alignx.stage1.experts import expert_updates
from alignx.stage1.extracts import encode_prompts, read_latent_space
from alignx.stage2.dial import Dial
from alignx.stage2.experts import gate_weights, install_experts
from alignx.stage2.mocae import Mocae, Routing
from alignx.stage2.pipeline import check_current, read_mocae, read_signatures
from alignx.stage2.whole import WholeExperts, fixed_form, read_whole_experts

TRADEOFF = "tradeoff"
DEFAULT_LIMIT, DEFAULT_RESOLUTION = 40, 3


def run_tradeoff(
    config: RunConfig,
    run: RunDirectory,
    *,
    limit: int = DEFAULT_LIMIT,
    resolution: int = DEFAULT_RESOLUTION,
    lazy: LazyBase | None = None,
) -> dict[str, Any] | None:
    """Sweep the dial and score every setting with the likelihood judge.

    Args:
        config: the run's config.
        run: a run directory whose Stage 2 is finished.
        limit: most test prompts of an axis, drawn by hash order.
        resolution: steps along an edge of the grid over the simplex.
        lazy: the base; none loads its own.

    Returns:
        What `eval/tradeoff/metrics.json` holds; none for one axis, where there is nothing to trade.

    Raises:
        AlignXError: of the step that could not be done.
    """
    if len(config.axes) == 1:
        return None
    mocae = read_mocae(run)
    check_current(config, run)
    lazy = lazy or LazyBase(config, run)
    base = lazy.base
    examples = [example for axis in config.axes for example in _drawn(read_splits(run, axis).test, limit)]
    items = likelihood_items(examples, base.template, max_tokens=min(config.evaluate.max_tokens, base.context_tokens))
    space = read_latent_space(run)
    signatures = read_signatures(base, space, encode_prompts(base, examples), what="read test prompts")
    experts = read_whole_experts(config, run, base)
    also = {name: read_joint(config, run, lazy, name) for name in _joints(config, run)}
    joint = expert_updates(config, run, base, JOINT) if JOINT in also and experts.run_folded else None
    routing = mocae.route(signatures)
    settings = swept_settings(config, _dial_weights(config, run, base, mocae), resolution)
    with install_experts(config, run, base, also=also) as gated:
        trained = _trained(run, gated)
        scorer = Scorer(config, base, gated, trained, items, run.evaluation_folder(TRADEOFF) / "scores.jsonl")
        rivals = _rival_scores(scorer, methods(config, run, experts, gated, mocae, signatures, joint=joint))
        swept = [_mixture(setting, mocae, routing, experts, gated, trained, len(items)) for setting in settings]
        scores = rivals | {mixture.name: scorer.scores(mixture) for mixture in swept}
    metrics = tradeoff_figures(
        config,
        settings,
        scores,
        {setting.name: _mean_shares(setting, mocae, routing, examples) for setting in settings},
        axis_of=[example.axis for example in examples],
        prompt_of=[example.prompt_hash for example in examples],
    )
    known = sources(config, run)
    metrics |= {
        "made_from": {name: known[name] for name in (ALIGNX, *rivals) if name in known},
        "environment": describe_environment(),
        "limit": limit,
        "resolution": resolution,
    }
    _keep(run, metrics, _score_rows(config.seed, examples, scores))
    return metrics


def _rival_scores(scorer: Scorer, compared: Iterable[Method]) -> dict[str, list[PromptScore]]:
    """Method -> its scores, the mean over its repeats; all but AlignX and its ablations."""
    found: dict[str, list[list[PromptScore]]] = {}
    for one in compared:
        if one.name != ALIGNX and not one.name.startswith("ablation-"):
            made_from = f"{one.label} {one.made_from}" if one.updates else ""
            found.setdefault(one.name, []).append(
                scorer.scores(Mixture(one.label, one.weights, one.updates, made_from))
            )
    return {name: mean_scores(repeats) for name, repeats in found.items()}


def _keep(run: RunDirectory, metrics: dict[str, Any], score_rows: Iterator[dict[str, Any]]) -> None:
    rows = run.evaluation_folder(TRADEOFF) / "settings.jsonl"
    write_jsonl(rows, _rows(metrics))
    write_jsonl(score_rows_path(run), score_rows)
    write_json(tradeoff_path(run), metrics)
    run.mark_done(TRADEOFF, {}, rows, score_rows_path(run), tradeoff_path(run))
    pooled_path(run).unlink(missing_ok=True)  # of other sweeps than this one


def read_tradeoff(run: RunDirectory) -> dict[str, Any] | None:
    """A run's trade-off; none when it has none, or one of other experts, another mixture or other dials than now.

    Raises:
        ArtifactError: it is damaged.
    """
    path = tradeoff_path(run)
    if not path.is_file():
        return None
    if not tradeoff_is_current(run):
        notice(
            f"{path}: made from other experts, another mixture or along other dials; left out until `alignx tradeoff` "
            "is run again"
        )
        return None
    metrics: dict[str, Any] = read_json(path)
    return metrics


def tradeoff_path(run: RunDirectory) -> Path:
    """Where the figures of a run's trade-off lie."""
    return run.evaluation_folder(TRADEOFF) / "metrics.json"


def score_rows_path(run: RunDirectory) -> Path:
    """Where every setting's score of every prompt lies."""
    return run.evaluation_folder(TRADEOFF) / "prompts.jsonl"


def pooled_path(run: RunDirectory) -> Path:
    """Where the figures of several seeds lie, in the first one's run."""
    return run.evaluation_folder(TRADEOFF) / "pooled.json"


def tradeoff_is_current(run: RunDirectory) -> bool:
    """Whether a trade-off that is there was made from the experts and the mixture that the run has now.

    Raises:
        ArtifactError: it is damaged.
    """
    run.check(TRADEOFF)
    metrics = read_json(tradeoff_path(run))
    same_dials = metrics.get("dial_shares") == list(DIAL_SHARES)
    return same_dials and bool(metrics["made_from"].items() <= sources(run.read_config(), run).items())


def _drawn(examples: Sequence[Example], limit: int) -> list[Example]:
    """The first prompts by hash: a smaller limit takes some of a larger one's."""
    return sorted(examples, key=lambda example: example.prompt_hash)[:limit]


def _joints(config: RunConfig, run: RunDirectory) -> list[str]:
    """Joint LoRAs that are scored and that the run has."""
    trained = {name: bool(run.step_fingerprint(_step_of(name))) for name in joints(config, run)}
    for name, there in trained.items():
        if not there:
            notice(f"{name}: not trained yet, so it is not placed; run `alignx evaluate {run.root}` before")
    return [name for name, there in trained.items() if there]


def _step_of(adapter: str) -> str:
    return f"choose-{adapter}" if adapter in {JOINT, JOINT_MR} else f"train-{adapter}"


def _trained(run: RunDirectory, gated: GatedModel) -> dict[str, str]:
    """Installed adapter -> fingerprint of its training."""
    return {name: run.step_fingerprint(_step_of(name)) for name in gated.names}


def _dial_weights(config: RunConfig, run: RunDirectory, base: BaseModel, mocae: Mocae) -> dict[str, tuple[float, ...]]:
    """Axis -> the weights along its dial, found on calibration prompts: the same for every draw of test prompts."""
    examples = [example for axis in config.axes for example in read_splits(run, axis).calibration]
    encoded = encode_prompts(base, examples)
    routing = mocae.route(read_signatures(base, read_latent_space(run), encoded, what="read calibration prompts"))

    def own_share(axis: str, weight: float) -> float:
        return _mean_shares(Setting("", "dial", Dial({axis: weight}), axis), mocae, routing, examples)[axis][axis]

    return {axis: dial_weights(partial(own_share, axis)) for axis in mocae.axes}


def _mixture(
    setting: Setting,
    mocae: Mocae,
    routing: Routing,
    experts: WholeExperts,
    gated: GatedModel,
    trained: Mapping[str, str],
    n: int,
) -> Mixture:
    """What a setting makes of n prompts."""
    if setting.kind == "static":
        weights, updates = fixed_form(experts, gated.names, setting.dial.weights, n)
        # The scorer sees which adapters are on behind gates; what is folded must be named.
        made_from = fingerprint([setting.dial.weights, trained]) if updates else ""
        return Mixture(setting.name, weights, updates, made_from)
    pi, scale = _dialled(setting, mocae, routing)
    return Mixture(setting.name, gate_weights(gated.names, list(mocae.axes), pi, scale).float())


def _dialled(setting: Setting, mocae: Mocae, routing: Routing) -> tuple[Tensor, Tensor]:
    dial, axes = setting.dial, mocae.axes
    strength = torch.tensor(dial.checked_strength(), dtype=torch.float64)
    return mocae.mix(routing, dial.weight_vector(axes), dial.floor_vector(axes), strength)


def _mean_shares(
    setting: Setting, mocae: Mocae, routing: Routing, examples: Sequence[Example]
) -> dict[str, dict[str, float]]:
    """Axis of the prompts -> mean mixture weight of every expert on them."""
    pi = _dialled(setting, mocae, routing)[0]
    if setting.kind == "static":
        row = torch.tensor([setting.dial.weights[axis] for axis in mocae.axes], dtype=torch.float64)
        pi = row.expand(len(examples), -1)
    own = [torch.tensor([example.axis == axis for example in examples]) for axis in mocae.axes]
    return {
        axis: dict(zip(mocae.axes, pi[at].mean(dim=0).tolist(), strict=True))
        for axis, at in zip(mocae.axes, own, strict=True)
    }


def _rows(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, setting in metrics["settings"].items():
        yield {"seed": metrics["seed"], "setting": name, **setting}


def _score_rows(
    seed: int, examples: Sequence[Example], scores: Mapping[str, Sequence[PromptScore]]
) -> Iterator[dict[str, Any]]:
    for name, of_setting in scores.items():
        for example, score in zip(examples, of_setting, strict=True):
            about = {"seed": seed, "setting": name, "axis": example.axis, "prompt_hash": example.prompt_hash}
            yield {**about, **asdict(score)}
