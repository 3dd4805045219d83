"""A sweep's scores -> what `metrics.json` holds, for one run or for several seeds of one config."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignx.config import RunConfig
from alignx.evaluate.likelihood.judge import CHAT
from alignx.evaluate.tradeoff.scoring import PromptScore
from alignx.evaluate.tradeoff.settings import DIAL_SHARES, REST, Setting
from alignx.evaluate.tradeoff.surface import Roles, Sweep, surface
from alignx.models.precision import resolved_precision

# Setting -> axis of the prompts -> axis of the expert -> mean mixture weight.
Shares = Mapping[str, Mapping[str, Mapping[str, float]]]


def tradeoff_figures(
    config: RunConfig,
    settings: Sequence[Setting],
    scores: Mapping[str, Sequence[PromptScore]],
    shares: Shares,
    *,
    axis_of: Sequence[str],
    prompt_of: Sequence[str],
) -> dict[str, Any]:
    """All figures that follow from scores.

    Args:
        config: axes, what each is judged by, draws of the bootstrap, its seed.
        settings: what was swept; those of a dial in ascending order.
        scores: setting or method -> its score of every row.
        shares: of every setting.
        axis_of: axis of each row.
        prompt_of: prompt of each row.
    """
    axes = list(config.axes)
    metric = {axis: str(axis_config.judged_by) for axis, axis_config in config.axes.items()}
    by_kind = {kind: [one.name for one in settings if one.kind == kind] for kind in ("dial", "grid", "static")}
    made = {setting.name for setting in settings}
    methods = [name for name in scores if name not in made]
    dials = {axis: [one.name for one in settings if one.kind == "dial" and one.axis == axis] for axis in axes}
    roles = Roles(
        dials=dials,
        shares={axis: [shares[name][axis][axis] for name in names] for axis, names in dials.items()},
        rest=REST,
        swept=[*by_kind["dial"], *by_kind["grid"]],
        fixed=by_kind["static"],
        rivals=[*methods, *by_kind["static"]],
    )
    sweep = Sweep(axes, axis_of, scores, metric, prompt_of)
    found = surface(sweep, roles, n_draws=config.evaluate.bootstrap_draws, seed=config.seed)
    for setting in settings:
        found["settings"][setting.name] |= {
            "kind": setting.kind,
            "axis": setting.axis,
            "weights": dict(setting.dial.weights),
            "floors": dict(setting.dial.floors),
            "strength": setting.dial.strength,
            "mean_pi": shares[setting.name],
        }
    for name in methods:
        found["settings"][name] |= {"kind": "method"}
    return {
        "axes": axes,
        "judge": "likelihood",
        "prompt_style": CHAT,
        "precision": resolved_precision(config.evaluate.precision),
        "model": config.model,
        "seed": config.seed,
        "metric": metric,
        "dial_shares": list(DIAL_SHARES),
        **found,
    }
