"""The methods that are compared: adapter weights for every prompt, and a dense update where a merge needs one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignx.config import MERGE_NAMES, RunConfig
from alignx.evaluate.joint import JOINT
from alignx.models.gated import GatedModel
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.stage1.pipeline import SHARED
from alignx.stage1.task_vector import TaskVector
from alignx.stage2.dial import mixture_weights
from alignx.stage2.experts import gate_weights
from alignx.stage2.merges import merged_updates
from alignx.stage2.mocae import Mocae, Routing
from alignx.stage2.pipeline import merge_is_current, read_merge

ALIGNX = "alignx"
BASE = "base"
UNIFORM = "uniform"


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    Attributes:
        name: `base`, `expert-<axis>`, `joint`, `uniform`, `alignx`, or `ablation-...`.
        weights: (n, adapters) of the installed adapters; none is the bare base.
        made_from: fingerprint of what its scores depend on, besides the prompts.
        updates: dense updates folded into the base while it is scored.
    """

    name: str
    weights: Tensor | None
    made_from: str
    updates: dict[str, Callable[[], Tensor]] = field(default_factory=dict)


def expert_method(axis: str) -> str:
    """Name of an axis's own expert in the tables."""
    return f"expert-{axis}"


def sources(config: RunConfig, run: RunDirectory) -> dict[str, str]:
    """Every method a run has, in the order of the tables -> fingerprint of what it is made from.

    Reads records only; no model is needed.
    """
    trained = {axis: run.step_fingerprint(f"train-{axis}") for axis in config.axes}
    mixed = fingerprint([trained, run.step_fingerprint("mocae")])
    found = {BASE: "", **{expert_method(axis): trained[axis] for axis in config.axes}}
    if config.evaluate.joint:
        found[JOINT] = run.step_fingerprint("choose-joint")
    found |= {UNIFORM: fingerprint(trained), ALIGNX: mixed}
    if config.evaluate.ablations:
        names = ("warm-start", "plain-router", *(("shared-only",) if config.stage1.shared_expert else ()))
        found |= {f"ablation-{name}": mixed for name in names}
    made = [name for name in MERGE_NAMES if name != "uniform" and run.merge_path(name).is_file()]
    current = [name for name in made if merge_is_current(config, run, name)]
    return found | {f"ablation-{name}": run.step_fingerprint(f"merge-{name}") for name in current}


def is_main(method: str) -> bool:
    """Whether a method is answered with and judged unless others are named: no ablation."""
    return not method.startswith("ablation-")


def methods(
    config: RunConfig,
    run: RunDirectory,
    experts: Mapping[str, TaskVector],
    gated: GatedModel,
    mocae: Mocae,
    signatures: Tensor,
) -> list[Method]:
    """Every method of a run, in the order of the tables.

    Args:
        config: the run's config.
        run: the run directory.
        experts: the axes' task vectors.
        gated: shared, axes' and (when scored) joint adapters, installed.
        mocae: the trained mixture.
        signatures: (n, sum of widths) of the prompts to score.
    """
    routing, n = mocae.route(signatures), len(signatures)
    axes, m = list(config.axes), len(config.axes)
    made_from = sources(config, run)
    ones = torch.ones(n, dtype=torch.float64)

    def gates(pi: Tensor, scale: Tensor = ones) -> Tensor:
        return gate_weights(gated.names, axes, pi.double(), scale).float()

    found = [Method(BASE, None, made_from[BASE])]
    for number, axis in enumerate(axes):
        alone = torch.zeros(n, m)
        alone[:, number] = 1
        found.append(Method(expert_method(axis), gates(alone), made_from[expert_method(axis)]))
    if JOINT in gated.names:
        weights = torch.zeros(n, len(gated.names))
        weights[:, gated.names.index(JOINT)] = 1
        found.append(Method(JOINT, weights, made_from[JOINT]))
    found.append(Method(UNIFORM, gates(torch.full((n, m), 1 / m)), made_from[UNIFORM]))
    pi, scale = neutral_mixture(mocae, routing)
    found.append(Method(ALIGNX, gates(pi, scale), made_from[ALIGNX]))
    if config.evaluate.ablations:
        found += _ablations(mocae, routing, signatures, gated, gates, made_from[ALIGNX])
    return found + _merges(config, run, experts, gates, n, made_from)


def neutral_mixture(mocae: Mocae, routing: Routing) -> tuple[Tensor, Tensor]:
    """Pi (n, m) and factor (n,) with the dial at rest."""
    flat = torch.ones(len(mocae.axes), dtype=torch.float64)
    return mocae.mix(routing, flat, 0 * flat, torch.tensor(1.0, dtype=torch.float64))


def _ablations(
    mocae: Mocae,
    routing: Routing,
    signatures: Tensor,
    gated: GatedModel,
    gates: Callable[[Tensor], Tensor],
    made_from: str,
) -> list[Method]:
    flat = torch.ones(len(mocae.axes), dtype=torch.float64)
    warm = mixture_weights(routing.best_probs.log(), routing.known, flat, 0 * flat, fallback=mocae.fallback)
    found = [
        Method("ablation-warm-start", gates(warm), made_from),
        Method("ablation-plain-router", gates(mocae.plain_logits(signatures).softmax(dim=1)), made_from),
    ]
    if SHARED in gated.names:
        found.append(Method("ablation-shared-only", gates(torch.zeros_like(warm)), made_from))
    return found


def _merges(
    config: RunConfig,
    run: RunDirectory,
    experts: Mapping[str, TaskVector],
    gates: Callable[[Tensor], Tensor],
    n: int,
    made_from: Mapping[str, str],
) -> list[Method]:
    found, m = [], len(experts)
    for name in MERGE_NAMES:
        if name == "uniform" or not run.merge_path(name).is_file():
            continue
        if f"ablation-{name}" not in made_from:
            notice(f"{name}: made from other experts; left out until `alignx stage2 --method {name}` is run again")
            continue
        merge = read_merge(run, name)
        method = f"ablation-{name}"
        if merge.is_weighted_sum:
            found.append(Method(method, gates(torch.full((n, m), merge.coefficient)), made_from[method]))
        else:
            updates = merged_updates(merge, experts)
            found.append(Method(method, gates(torch.zeros(n, m)), made_from[method], updates))
    return found
