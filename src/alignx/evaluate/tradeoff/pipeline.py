"""`alignx tradeoff`, start to end: sweep the dial over a run's test prompts, score every setting, keep the figures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.data.prepare import read_splits
from alignx.evaluate.joint import JOINT, read_joint
from alignx.evaluate.likelihood import PROMPT_STYLE, likelihood_items
from alignx.evaluate.methods import ALIGNX, BASE, UNIFORM, expert_method, methods, sources
from alignx.evaluate.tradeoff.scoring import Mixture, PromptScore, Scorer
from alignx.evaluate.tradeoff.settings import (
    DIAL_VALUES,
    Setting,
    dial_settings,
    grid_settings,
    preset_settings,
    static_settings,
)
from alignx.evaluate.tradeoff.surface import Roles, Sweep, surface
from alignx.models.gated import GatedModel
from alignx.models.lazy import LazyBase
from alignx.models.precision import resolved_precision
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_json, write_json, write_jsonl
from alignx.stage1.experts import expert_updates
from alignx.stage1.extracts import encode_prompts, read_latent_space
from alignx.stage2.experts import gate_weights, install_experts
from alignx.stage2.mocae import Mocae, Routing
from alignx.stage2.pipeline import check_current, read_mocae, read_signatures
from alignx.stage2.whole import WholeExperts, fixed_form, read_whole_experts

TRADEOFF = "tradeoff"
DEFAULT_LIMIT, DEFAULT_RESOLUTION = 40, 3
_ABLATIONS = ("warm-start", "plain-router", "shared-only")


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
    also = {JOINT: read_joint(config, run, lazy)} if _has_joint(config, run) else {}
    joint = expert_updates(config, run, base, JOINT) if also and experts.run_folded else None
    folder = run.evaluation_folder(TRADEOFF)
    settings = _settings(config, resolution)
    with install_experts(config, run, base, also=also) as gated:
        trained = _trained(run, gated)
        scorer = Scorer(config, run, base, gated, trained, items, folder / "scores.jsonl")
        rivals = [
            Mixture(one.name, one.weights, one.updates, f"{one.name} {one.made_from}" if one.updates else "")
            for one in methods(config, run, experts, gated, mocae, signatures, joint=joint)
            if one.name != ALIGNX and one.name.removeprefix("ablation-") not in _ABLATIONS
        ]
        routing = mocae.route(signatures)
        swept = [_mixture(setting, mocae, routing, experts, gated, trained, len(items)) for setting in settings]
        scores = {mixture.name: scorer.scores(mixture) for mixture in [*rivals, *swept]}
    shares = {setting.name: _mean_shares(setting, mocae, routing, examples) for setting in settings}
    metrics = _metrics(config, run, settings, scores, shares, [example.axis for example in examples])
    metrics |= {"limit": limit, "resolution": resolution}
    write_jsonl(folder / "settings.jsonl", _rows(metrics))
    write_json(folder / "metrics.json", metrics)
    run.mark_done(TRADEOFF, {}, folder / "settings.jsonl", folder / "metrics.json")
    return metrics


def read_tradeoff(run: RunDirectory) -> dict[str, Any] | None:
    """A run's trade-off; none when it has none, or one of other experts or another mixture than it has now.

    Raises:
        ArtifactError: it is damaged.
    """
    path = run.evaluation_folder(TRADEOFF) / "metrics.json"
    if not path.is_file():
        return None
    run.check(TRADEOFF)
    metrics: dict[str, Any] = read_json(path)
    if not metrics["made_from"].items() <= sources(run.read_config(), run).items():
        notice(f"{path}: made from other experts or another mixture; left out until `alignx tradeoff` is run again")
        return None
    return metrics


def _drawn(examples: Sequence[Example], limit: int) -> list[Example]:
    """The first prompts by hash: a smaller limit takes some of a larger one's."""
    return sorted(examples, key=lambda example: example.prompt_hash)[:limit]


def _has_joint(config: RunConfig, run: RunDirectory) -> bool:
    if not config.evaluate.joint:
        return False
    if run.step_fingerprint("choose-joint"):
        return True
    notice(f"joint LoRA: not trained yet, so it is not placed; run `alignx evaluate {run.root}` before")
    return False


def _trained(run: RunDirectory, gated: GatedModel) -> dict[str, str]:
    """Installed adapter -> fingerprint of its training."""
    return {name: run.step_fingerprint("choose-joint" if name == JOINT else f"train-{name}") for name in gated.names}


def _settings(config: RunConfig, resolution: int) -> list[Setting]:
    axes = list(config.axes)
    along = [setting for settings in dial_settings(axes).values() for setting in settings]
    found = [
        *along,
        *grid_settings(axes, resolution),
        *preset_settings(axes, config.presets),
        *static_settings(axes, resolution),
    ]
    return list({setting.name: setting for setting in found}.values())


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


def _metrics(
    config: RunConfig,
    run: RunDirectory,
    settings: Sequence[Setting],
    scores: Mapping[str, Sequence[PromptScore]],
    shares: Mapping[str, Mapping[str, Mapping[str, float]]],
    axis_of: Sequence[str],
) -> dict[str, Any]:
    axes = list(config.axes)
    metric = {axis: str(axis_config.judged_by) for axis, axis_config in config.axes.items()}
    by_kind = {kind: [one.name for one in settings if one.kind == kind] for kind in ("dial", "grid", "static")}
    made = {setting.name for setting in settings}
    rivals = [name for name in scores if name not in made]
    roles = Roles(
        dials={axis: [one.name for one in along] for axis, along in dial_settings(axes).items()},
        values=DIAL_VALUES,
        swept=[*by_kind["dial"], *by_kind["grid"]],
        fixed=by_kind["static"],
        rivals=[*rivals, *by_kind["static"]],
    )
    found = surface(
        Sweep(axes, axis_of, scores, metric), roles, n_draws=config.evaluate.bootstrap_draws, seed=config.seed
    )
    for setting in settings:
        found["settings"][setting.name] |= {
            "kind": setting.kind,
            "axis": setting.axis,
            "weights": dict(setting.dial.weights),
            "floors": dict(setting.dial.floors),
            "strength": setting.dial.strength,
            "mean_pi": shares[setting.name],
        }
    for name in rivals:
        found["settings"][name] |= {"kind": "method"}
    used = [BASE, *map(expert_method, axes), UNIFORM, ALIGNX, *(name for name in rivals if name in scores)]
    known = sources(config, run)
    return {
        "axes": axes,
        "judge": "likelihood",
        "prompt_style": PROMPT_STYLE,
        "precision": resolved_precision(config.evaluate.precision),
        "model": config.model,
        "seed": config.seed,
        "metric": metric,
        **found,
        "made_from": {name: known[name] for name in used if name in known},
        "environment": describe_environment(),
    }


def _rows(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, setting in metrics["settings"].items():
        yield {"seed": metrics["seed"], "setting": name, **setting}
