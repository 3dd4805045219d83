"""The methods that are compared: adapter weights for every prompt, and a dense update where gates do not do.

Of fully fine-tuned experts whatever is the same for all prompts is scored whole, folded into the base; mixtures made
for every prompt (AlignX and its ablations) run behind gates, as the experts' factors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignx.config import MERGE_NAMES, RunConfig
from alignx.evaluate.joint import JOINT, JOINT_MR, joint_mr_is_current
from alignx.models.fold import Updates
from alignx.models.gated import GatedModel
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.stage1.experts import SHARED
from alignx.stage2.dial import mixture_weights
from alignx.stage2.experts import gate_weights
from alignx.stage2.mocae import Mocae, Routing
from alignx.stage2.pipeline import merge_is_current, read_merge
from alignx.stage2.whole import WholeExperts, fixed_form, merge_form

ALIGNX = "alignx"
BASE = "base"
UNIFORM = "uniform"
EXPERT_PREFIX = "expert-"
PLAIN_ROUTER = "ablation-plain-router"


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    Attributes:
        name: `base`, `expert-<axis>`, `joint`, `joint-mr`, `uniform`, a merge's name, `alignx`, or `ablation-...`.
        weights: (n, adapters) of the installed adapters; none is the bare base.
        made_from: fingerprint of what its scores depend on, besides the prompts.
        updates: dense updates folded into the base while it is scored.
        repeat: 0, 1, ... where a method is scored with several seeds; its row is their mean.
    """

    name: str
    weights: Tensor | None
    made_from: str
    updates: Updates = field(default_factory=dict)
    repeat: int = 0

    @property
    def label(self) -> str:
        """The name, with the repeat's number from the second on."""
        return f"{self.name}#{self.repeat}" if self.repeat else self.name


def expert_method(axis: str) -> str:
    """Name of an axis's own expert in the tables."""
    return f"{EXPERT_PREFIX}{axis}"


def sources(config: RunConfig, run: RunDirectory) -> dict[str, str]:
    """Every method a run has, in the order of the tables -> fingerprint of what it is made from.

    Reads records only; no model is needed.
    """
    trained = {axis: run.step_fingerprint(f"train-{axis}") for axis in config.axes}
    mixed = fingerprint([trained, run.step_fingerprint("mocae")])
    found = {BASE: "", **{expert_method(axis): trained[axis] for axis in config.axes}}
    found |= {name: run.step_fingerprint(f"choose-{name}") for name in joints(config, run)}
    found |= {UNIFORM: fingerprint(trained), ALIGNX: mixed}
    if config.evaluate.ablations:
        names = ("best-probs", "plain-router", *(("shared-only",) if config.stage1.shared_expert else ()))
        found |= {f"ablation-{name}": mixed for name in names}
    made = [name for name in MERGE_NAMES if name != "uniform" and run.merge_path(name).is_file()]
    current = [name for name in made if merge_is_current(config, run, name)]
    return found | {name: run.step_fingerprint(f"merge-{name}") for name in current}


def made_now(figures: Mapping[str, Any], config: RunConfig, run: RunDirectory) -> bool:
    """Whether figures are of the experts and the mixture that a run has now; those that do not say so are taken to be.

    Args:
        figures: a document whose `made_from` maps methods to the fingerprints of what they were made from.
        config: the run's config.
        run: the run directory.
    """
    known = sources(config, run)
    return all(known.get(name, source) == source for name, source in figures.get("made_from", {}).items())


def joints(config: RunConfig, run: RunDirectory) -> list[str]:
    """The joint LoRAs to score: those that the config asks for, and a `joint-mr` that was made beside it."""
    return [
        name
        for name in (JOINT, JOINT_MR)
        if name in config.comparators or (name == JOINT_MR and joint_mr_is_current(config, run))
    ]


def is_main(method: str) -> bool:
    """Whether a method is answered with and judged unless others are named: no ablation, merge or second joint LoRA."""
    return method in {BASE, JOINT, UNIFORM, ALIGNX} or method.startswith(EXPERT_PREFIX)


def methods(
    config: RunConfig,
    run: RunDirectory,
    experts: WholeExperts,
    gated: GatedModel,
    mocae: Mocae,
    signatures: Tensor,
    *,
    joint: Updates | None = None,
) -> list[Method]:
    """Every method of a run, in the order of the tables.

    Args:
        config: the run's config.
        run: the run directory.
        experts: the whole experts.
        gated: shared, axes' and (when scored) joint and joint-mr adapters, installed.
        mocae: the trained mixture.
        signatures: (n, sum of widths) of the prompts to score.
        joint: the joint expert's whole update, where gates would leave something out.
    """
    routing, n = mocae.route(signatures), len(signatures)
    axes = list(config.axes)
    made_from = sources(config, run)
    ones = torch.ones(n, dtype=torch.float64)

    def gates(pi: Tensor, scale: Tensor = ones) -> Tensor:
        return gate_weights(gated.names, axes, pi.double(), scale).float()

    def fixed(name: str, coefficients: Mapping[str, float], source: str) -> Method:
        weights, updates = fixed_form(experts, gated.names, coefficients, n)
        return Method(name, weights, made_from[source], updates)

    found = [Method(BASE, None, made_from[BASE])]
    found += [fixed(expert_method(axis), {axis: 1.0}, expert_method(axis)) for axis in axes]
    for name in (JOINT, JOINT_MR):
        if name in gated.names:
            whole = joint or {} if name == JOINT else {}
            weights = torch.zeros(n, len(gated.names))
            weights[:, gated.names.index(name)] = 0 if whole else 1
            found.append(Method(name, weights, made_from[name], whole))
    found.append(fixed(UNIFORM, dict.fromkeys(axes, 1 / len(axes)), UNIFORM))
    pi, scale = neutral_mixture(mocae, routing)
    found.append(Method(ALIGNX, gates(pi, scale), made_from[ALIGNX]))
    if config.evaluate.ablations:
        found += _ablations(mocae, routing, signatures, gates, made_from[ALIGNX])
        if SHARED in gated.names:
            found.append(fixed("ablation-shared-only", {}, ALIGNX))
    return found + _merges(config, run, experts, gated, n, made_from)


def neutral_mixture(mocae: Mocae, routing: Routing) -> tuple[Tensor, Tensor]:
    """Pi (n, m) and factor (n,) with the dial at rest."""
    flat = torch.ones(len(mocae.axes), dtype=torch.float64)
    return mocae.mix(routing, flat, 0 * flat, torch.tensor(1.0, dtype=torch.float64))


def _ablations(
    mocae: Mocae,
    routing: Routing,
    signatures: Tensor,
    gates: Callable[[Tensor], Tensor],
    made_from: str,
) -> list[Method]:
    flat = torch.ones(len(mocae.axes), dtype=torch.float64)
    by_best = mixture_weights(routing.best_probs.log(), routing.known, flat, 0 * flat, fallback=mocae.fallback)
    return [
        Method("ablation-best-probs", gates(by_best), made_from),
        Method(PLAIN_ROUTER, gates(mocae.plain_logits(signatures).softmax(dim=1)), made_from),
    ]


def _merges(
    config: RunConfig,
    run: RunDirectory,
    experts: WholeExperts,
    gated: GatedModel,
    n: int,
    made_from: Mapping[str, str],
) -> list[Method]:
    found = []
    for name in MERGE_NAMES:
        if name == "uniform" or not run.merge_path(name).is_file():
            continue
        if name not in made_from:
            notice(f"{name}: made from other experts; left out until `alignx stage2 --method {name}` is run again")
            continue
        for repeat, merge in enumerate(read_merge(run, name).repeats):
            weights, updates = merge_form(experts, gated.names, merge, n)
            source = fingerprint([made_from[name], merge.seed]) if repeat else made_from[name]
            found.append(Method(name, weights, source, updates, repeat))
    return found
