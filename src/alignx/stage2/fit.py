"""Fitting MoCaE: each part on the split that may teach it.

train: router's warm start, anchors, Gaussians. mix: coefficients, read-out heads, standardisation of the detector.
calibration: scales, temperatures, p-values.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alignx.config import Stage2Config
from alignx.stage1.latent import signature_blocks
from alignx.stage2.best_expert import fit_best_expert
from alignx.stage2.foreign import ForeignDetector, fit_detector, held_out_auroc
from alignx.stage2.fractal import FractalCalibrator
from alignx.stage2.logistic import (
    choose_l2,
    equal_axis_weights,
    fit_coefficients,
    fit_logistic,
    fit_temperature,
)
from alignx.stage2.mocae import Head, Mocae
from alignx.stage2.natural import NaturalCalibrator
from alignx.stage2.scaling import centre_over_axes, fitted_scale
from alignx.stage2.targets import axis_targets, soft_targets, tied_experts


@dataclass(frozen=True)
class SplitFeatures:
    """Prompts of one split, all axes together.

    Attributes:
        signatures: (n, sum of widths).
        axis_ids: (n,) axis each prompt comes from.
        expert_losses: (n, m) nats a target token under each expert; empty for the train split, whose targets the
            experts have seen.
    """

    signatures: Tensor
    axis_ids: Tensor
    expert_losses: Tensor


@dataclass(frozen=True)
class FittingInputs:
    """Everything the mixture is fitted on, read once.

    Attributes:
        axes: names, in the order of `axis_ids`.
        layers: decoder layers of the signature's blocks.
        widths: their widths.
        train: see `SplitFeatures`.
        mix: see `SplitFeatures`.
        calibration: see `SplitFeatures`.
        foreign: (n, sum of widths) signatures of the foreign development set.
        foreign_kinds: (n,) kind of each of its prompts.
    """

    axes: tuple[str, ...]
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    train: SplitFeatures
    mix: SplitFeatures
    calibration: SplitFeatures
    foreign: Tensor
    foreign_kinds: Tensor | None = None

    def fit(self, config: Stage2Config, *, router: tuple[Tensor, Tensor] | None = None) -> Mocae:
        """`fit_mocae` on these."""
        return fit_mocae(
            self.axes,
            self.layers,
            self.widths,
            train=self.train,
            mix=self.mix,
            calibration=self.calibration,
            foreign=self.foreign,
            foreign_kinds=self.foreign_kinds,
            config=config,
            router=router,
        )


def fit_mocae(
    axes: tuple[str, ...],
    layers: tuple[int, ...],
    widths: tuple[int, ...],
    *,
    train: SplitFeatures,
    mix: SplitFeatures,
    calibration: SplitFeatures,
    foreign: Tensor,
    config: Stage2Config,
    foreign_kinds: Tensor | None = None,
    router: tuple[Tensor, Tensor] | None = None,
) -> Mocae:
    """Fit everything but the end-to-end step.

    Args:
        axes: names, in the order of `axis_ids`.
        layers: decoder layers of the signature's blocks.
        widths: their widths.
        train: see `SplitFeatures`.
        mix: see `SplitFeatures`.
        calibration: see `SplitFeatures`.
        foreign: (n, sum of widths) signatures of the foreign development set.
        config: Stage 2's settings.
        foreign_kinds: (n,) kind of each foreign prompt, so that the detector's depth is chosen by kinds held out;
            None: five parts of the set are held out instead.
        router: W_r and b of an earlier fit on the same train split, which no setting of `config` changes; none fits
            them.
    """
    m = len(axes)
    fractals, naturals = _fit_calibrators(train, widths, m, config)
    folds = foreign_kinds if foreign_kinds is not None else torch.arange(len(foreign)) % 5
    detector = _best_detector(
        fractals, naturals, widths, mix=mix, calibration=calibration, foreign=foreign, folds=folds
    )
    router_weight, router_bias = router or _fit_router(train, m)
    blank = Head(torch.zeros(m, 3 * m, dtype=torch.float64), torch.zeros(m, dtype=torch.float64))
    mocae = Mocae(
        axes=axes,
        layers=layers,
        widths=widths,
        router_weight=router_weight,
        router_bias=router_bias,
        coefficients=torch.ones(3, dtype=torch.float64),
        scales=_fit_scales(fractals[-1], naturals[-1], signature_blocks(calibration.signatures, widths)[-1]),
        axis_temperature=1.0,
        best_head=blank,
        mixture_head=blank,
        strength=1.0,
        plain_temperatures=(1.0, 1.0),
        fractal=fractals[-1],
        natural=naturals[-1],
        detector=detector,
        foreign_p_values=config.foreign_p_values,
        fallback=config.fallback,
        uniform=config.uniform,
    )
    mocae = _fit_axis_readout(mocae, mix, calibration, config)
    mocae = _fit_best_readout(mocae, mix, calibration, config)
    return _fit_mixture_head(mocae, mix, calibration, config)


def _fit_calibrators(
    train: SplitFeatures, widths: tuple[int, ...], m: int, config: Stage2Config
) -> tuple[list[FractalCalibrator], list[NaturalCalibrator]]:
    fractals, naturals = [], []
    for block in signature_blocks(train.signatures, widths):
        fractals.append(
            FractalCalibrator.fit(
                block,
                train.axis_ids,
                m,
                epsilon=config.epsilon,
                q=config.neighbour,
                neighbours=config.dimension_neighbours,
            )
        )
        naturals.append(NaturalCalibrator.fit(block, train.axis_ids, m))
    return fractals, naturals


def _best_detector(
    fractals: list[FractalCalibrator],
    naturals: list[NaturalCalibrator],
    widths: tuple[int, ...],
    *,
    mix: SplitFeatures,
    calibration: SplitFeatures,
    foreign: Tensor,
    folds: Tensor,
) -> ForeignDetector:
    """The depth that best tells calibration prompts from foreign development prompts of kinds it has not seen."""
    blocks = [signature_blocks(split, widths) for split in (mix.signatures, calibration.signatures, foreign)]
    splits = [
        dict(zip(("mix", "calibration", "foreign"), at_depth, strict=True)) for at_depth in zip(*blocks, strict=True)
    ]
    aurocs = [
        held_out_auroc(natural, fractal, **split, folds=folds)
        for natural, fractal, split in zip(naturals, fractals, splits, strict=True)
    ]
    best = max(range(len(aurocs)), key=aurocs.__getitem__)
    return replace(fit_detector(naturals[best], fractals[best], best, **splits[best]), auroc=tuple(aurocs))


def _fit_router(train: SplitFeatures, m: int) -> tuple[Tensor, Tensor]:
    """Warm start of W_r: multinomial logistic on axis labels, axes weighted equally, penalty by cross-validation."""
    weights = equal_axis_weights(train.axis_ids, m)
    targets = axis_targets(train.axis_ids, m)
    l2 = choose_l2(train.signatures, targets, weights)
    return fit_logistic(train.signatures, targets, weights, l2=l2)


def _fit_scales(fractal: FractalCalibrator, natural: NaturalCalibrator, deepest: Tensor) -> Tensor:
    scores = (fractal.scores(deepest), natural.scores(deepest))
    return torch.tensor([fitted_scale(centre_over_axes(score.double())) for score in scores], dtype=torch.float64)


def _fit_axis_readout(mocae: Mocae, mix: SplitFeatures, calibration: SplitFeatures, config: Stage2Config) -> Mocae:
    m = len(mocae.axes)
    switches = torch.tensor([1.0, float(config.fractal), float(config.natural)], dtype=torch.float64)
    lambdas = torch.tensor([1.0, config.lambda_fractal, config.lambda_natural], dtype=torch.float64)
    learned = torch.ones(3, dtype=torch.float64)
    if config.learn_coefficients:
        # On data the router has fitted, calibrators would fade: the mix split is new to it.
        parts = [
            part * on * scale for part, on, scale in zip(mocae.parts(mix.signatures), switches, lambdas, strict=True)
        ]
        learned = fit_coefficients(parts, mix.axis_ids, equal_axis_weights(mix.axis_ids, m))
    mocae = replace(mocae, coefficients=learned * lambdas * switches)
    if not config.fit_temperature:
        return mocae
    allowed = axis_targets(calibration.axis_ids, m).bool()
    weights = equal_axis_weights(calibration.axis_ids, m)
    logits = mocae.axis_logits(mocae.parts(calibration.signatures))
    plain = mocae.plain_logits(calibration.signatures)
    return replace(
        mocae,
        axis_temperature=fit_temperature(logits, allowed, weights),
        plain_temperatures=(fit_temperature(plain, allowed, weights), mocae.plain_temperatures[1]),
    )


def _fit_best_readout(mocae: Mocae, mix: SplitFeatures, calibration: SplitFeatures, config: Stage2Config) -> Mocae:
    m = len(mocae.axes)
    weight, bias = fit_best_expert(
        mocae.route(mix.signatures).best_features,
        mix.expert_losses,
        equal_axis_weights(mix.axis_ids, m),
        tie_tolerance=config.tie_tolerance,
    )
    mocae = replace(mocae, best_head=Head(weight, bias))
    if not config.fit_temperature:
        return mocae
    features = mocae.route(calibration.signatures).best_features
    plain = _best_temperature(mocae.plain_logits(calibration.signatures), calibration, config)
    return replace(
        mocae,
        best_head=Head(weight, bias, _best_temperature(mocae.best_head.logits(features), calibration, config)),
        plain_temperatures=(mocae.plain_temperatures[0], plain),
    )


def _fit_mixture_head(mocae: Mocae, mix: SplitFeatures, calibration: SplitFeatures, config: Stage2Config) -> Mocae:
    """Warm start of the mixture: tied experts get equal shares, because a mixture need not choose between them."""
    m = len(mocae.axes)
    # The head reads l / T_axis. It is fitted on l, and T goes into its columns, so that the calibration split's labels,
    # which make T, do not reach what it says.
    unit = torch.ones(3 * m, dtype=torch.float64)
    unit[:m] = mocae.axis_temperature
    features = mocae.route(mix.signatures).mixture_features * unit
    targets = soft_targets(mix.expert_losses, config.tie_tolerance)
    weights = equal_axis_weights(mix.axis_ids, m)
    weight, bias = fit_logistic(features, targets, weights, l2=choose_l2(features, targets, weights))
    mocae = replace(mocae, mixture_head=Head(weight * unit, bias))
    if not config.fit_temperature:
        return mocae
    logits = mocae.mixture_head.logits(mocae.route(calibration.signatures).mixture_features)
    return replace(mocae, mixture_head=Head(weight * unit, bias, _best_temperature(logits, calibration, config)))


def _best_temperature(logits: Tensor, calibration: SplitFeatures, config: Stage2Config) -> float:
    allowed = tied_experts(calibration.expert_losses, config.tie_tolerance)
    return fit_temperature(logits, allowed, equal_axis_weights(calibration.axis_ids, logits.shape[1]))
