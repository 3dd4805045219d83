"""The rows of the ablation table, as data: which settings a row changes, and how its mixture is read off.

A row either is fitted again with changed settings (`fitted`: everything but the end-to-end step, from features that are
read once) or takes the run's own mixture (`own`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from alignx.config import Stage2Config
from alignx.errors import ConfigError
from alignx.evaluate.methods import neutral_mixture
from alignx.stage2.mocae import Mocae, Routing

ALIGNX, WARM_START, UNIFORM = "alignx", "warm-start", "uniform"
PARTS, BESIDE = "parts", "beside"
LAMBDA_VALUES = {"lambda_fractal": (0.0, 0.3, 0.6, 1.0), "lambda_natural": (0.0, 0.2, 0.4, 1.0)}
EPSILONS = (0.02, 0.05, 0.1, 0.2)
NEIGHBOURS = (1, 2, 4, 8)
LATENT_SIZES = (32, 64, 128, 256)

Mixture = tuple[Tensor, Tensor]  # pi (n, m) and the factor on all experts (n,)


@dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        name: in artifacts and for `--only`.
        label: what readers see.
        group: `parts`, or the name of a sweep.
        source: `own`: the run's mixture; `fitted`: fitted again with `changes`.
        changes: fields of `Stage2Config`.
        latent_size: directions a depth; none: all.
        weigh: mixture of every prompt.
        read_outs: (axis_probs, best_probs) that belong to the row; none where it says nothing about either question.
        fixed: whether all prompts have one mixture, which does not depend on what they are.
    """

    name: str
    label: str
    group: str = PARTS
    source: Literal["own", "fitted"] = "fitted"
    changes: tuple[tuple[str, Any], ...] = ()
    latent_size: int | None = None
    weigh: Callable[[Mocae, Routing, Tensor], Mixture] = lambda mocae, routing, signatures: neutral_mixture(
        mocae, routing
    )
    read_outs: Callable[[Mocae, Routing, Tensor], Mixture] | None = lambda mocae, routing, signatures: (
        routing.axis_probs,
        routing.best_probs,
    )
    fixed: bool = False

    def settings(self, config: Stage2Config) -> Stage2Config:
        """The row's own settings."""
        return config.model_copy(update=dict(self.changes))


def variants(config: Stage2Config, widths: Sequence[int], *, shared_expert: bool) -> list[Variant]:
    """All rows of a run, AlignX last among the parts.

    Args:
        config: the run's Stage 2 settings.
        widths: of the signature's blocks; a latent size that cuts none of them is no row.
        shared_expert: whether the run has one.
    """
    parts = [variant for variant in _PARTS if shared_expert or variant.name != "shared-only"]
    sizes = [k for k in LATENT_SIZES if k < max(widths)]
    return [*parts, *_lambdas(), *_epsilons(), *_neighbours(config), *_latent_sizes(sizes)]


def choose(found: Sequence[Variant], only: Sequence[str]) -> list[Variant]:
    """The rows whose name or group is asked for, and AlignX, which all are compared with; nothing asked: all.

    Raises:
        ConfigError: no row and no group of that name.
    """
    names = list(dict.fromkeys([variant.name for variant in found] + [variant.group for variant in found]))
    for asked in only:
        if asked not in names:
            groups = list(dict.fromkeys(variant.group for variant in found))
            rows = [variant.name for variant in found if variant.group == PARTS]
            raise ConfigError(
                f"--only {asked}: this run has no such row; give a group ({', '.join(groups)}) or a row "
                f"({', '.join(rows)}, or one of a sweep such as {found[-1].name})"
            )
    return [v for v in found if not only or v.name in only or v.group in only or v.name == ALIGNX]


def _plain(mocae: Mocae, routing: Routing, signatures: Tensor) -> Mixture:
    """The plain router's softmax as mixture, at the temperature fitted on calibration labels; no foreign detector."""
    pi = (mocae.plain_logits(signatures) / mocae.plain_temperatures[0]).softmax(dim=1)
    return pi, torch.ones(len(pi), dtype=pi.dtype)


def _plain_read_outs(mocae: Mocae, routing: Routing, signatures: Tensor) -> Mixture:
    logits = mocae.plain_logits(signatures)
    own, best = mocae.plain_temperatures
    return (logits / own).softmax(dim=1), (logits / best).softmax(dim=1)


def _constant(value: Callable[[int], float]) -> Callable[[Mocae, Routing, Tensor], Mixture]:
    def weigh(mocae: Mocae, routing: Routing, signatures: Tensor) -> Mixture:
        n, m = len(signatures), len(mocae.axes)
        return torch.full((n, m), value(m), dtype=torch.float64), torch.ones(n, dtype=torch.float64)

    return weigh


def _one_hot(of: Callable[[Routing], Tensor]) -> Callable[[Mocae, Routing, Tensor], Mixture]:
    def weigh(mocae: Mocae, routing: Routing, signatures: Tensor) -> Mixture:
        probs = of(routing)
        pi = torch.nn.functional.one_hot(probs.argmax(dim=1), probs.shape[1]).double()
        return pi, torch.ones(len(pi), dtype=torch.float64)

    return weigh


def _strength_one(mocae: Mocae, routing: Routing, signatures: Tensor) -> Mixture:
    return neutral_mixture(replace(mocae, strength=1.0), routing)


def _switched(name: str, label: str, *, fractal: bool, natural: bool) -> Variant:
    changes = (("fractal", fractal), ("natural", natural), ("uniform", False))
    return Variant(name, label, changes=changes)


_PARTS = (
    Variant(
        "shared-only",
        "shared expert alone",
        source="own",
        weigh=_constant(lambda m: 0.0),
        read_outs=None,
        fixed=True,
    ),
    Variant(UNIFORM, "uniform mixture", source="own", weigh=_constant(lambda m: 1 / m), read_outs=None, fixed=True),
    Variant("plain-router", "plain router", source="own", weigh=_plain, read_outs=_plain_read_outs),
    _switched("router-head", "router + mixture head", fractal=False, natural=False),
    _switched("router-fractal", "router + fractal", fractal=True, natural=False),
    _switched("router-natural", "router + natural", fractal=False, natural=True),
    Variant(WARM_START, "AlignX, no end to end (warm start)"),
    Variant("strength-1", "AlignX, strength 1", source="own", weigh=_strength_one, read_outs=None),
    Variant(
        "one-hot-best",
        "AlignX, best expert alone",
        source="own",
        weigh=_one_hot(lambda routing: routing.best_probs),
        read_outs=None,
    ),
    Variant(
        "one-hot-axis",
        "AlignX, likeliest axis's expert alone",
        source="own",
        weigh=_one_hot(lambda routing: routing.axis_probs),
        read_outs=None,
    ),
    Variant(ALIGNX, "AlignX", source="own"),
)


def _lambdas() -> list[Variant]:
    """Both a are 1: only their product with lambda means anything where they are learned."""
    return [
        Variant(
            f"{field.replace('_', '-')}-{value:g}",
            f"{field.replace('_', ' ')} {value:g}",
            group="lambda",
            changes=((field, value), ("learn_coefficients", False)),
        )
        for field, values in LAMBDA_VALUES.items()
        for value in values
    ]


def _epsilons() -> list[Variant]:
    return [
        Variant(f"epsilon-{value:g}", f"epsilon {value:g}", group="epsilon", changes=(("epsilon", value),))
        for value in EPSILONS
    ]


def _neighbours(config: Stage2Config) -> list[Variant]:
    """The cell's neighbour lies within the neighbours of the local dimension."""
    values = [value for value in NEIGHBOURS if value <= config.dimension_neighbours[1]]
    return [Variant(f"q-{value}", f"q {value}", group="q", changes=(("neighbour", value),)) for value in values]


def _latent_sizes(sizes: Sequence[int]) -> list[Variant]:
    return [Variant(f"k-{k}", f"latent size {k}", group="latent-size", latent_size=k) for k in sizes]
