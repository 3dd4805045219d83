"""The Mixture of Calibrated Experts: what a prompt's signature says about the experts it needs.

logits l = a_R (W_r phi + b) + lambda_F a_F s^F + lambda_N a_N s^N; two read-outs and the mixture share it.
Source: AlignX (EACL 2026, arXiv:2602.07381) for the idea; the equations are this project's (docs/method.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alignx.stage1.latent import signature_blocks
from alignx.stage2.dial import expert_scale, mixture_weights
from alignx.stage2.foreign import ForeignDetector, with_prefix
from alignx.stage2.fractal import FractalCalibrator
from alignx.stage2.natural import NaturalCalibrator
from alignx.stage2.scaling import centre_over_axes

# What the best-expert head's columns are, kept with them: weights made for other columns must not be used on these.
BEST_HEAD_READS = "softmax(l), s^F, s^N"


@dataclass(frozen=True)
class Head:
    """A linear read-out of what the router and the calibrators say: logits = features W^T + b, over a temperature.

    Attributes:
        weight: (m, 3 m) float64.
        bias: (m,) float64.
        temperature: positive.
    """

    weight: Tensor
    bias: Tensor
    temperature: float = 1.0

    def logits(self, features: Tensor) -> Tensor:
        """(n, 3 m) -> (n, m), temperature included."""
        return (features @ self.weight.T + self.bias) / self.temperature


@dataclass(frozen=True)
class Routing:
    """What MoCaE says about n prompts; all float64.

    Attributes:
        axis_probs: (n, m) whose data the prompt is like.
        best_probs: (n, m) which expert serves it best.
        mixture_logits: (n, m) l_mix / T, before the dial.
        known: (n,) g in [0, 1]; 0 where no expert applies.
        best_features: (n, 3 m) softmax(l), at temperature 1, and both calibrators' scores: what the best-expert head
            reads. As probabilities, because the share of an axis's prompts that its expert serves best is the same
            whether the router is 99% or 99.99% sure of the axis.
        mixture_features: (n, 3 m) l / T_axis and both calibrators' scores: what the mixture head reads.
    """

    axis_probs: Tensor
    best_probs: Tensor
    mixture_logits: Tensor
    known: Tensor
    best_features: Tensor
    mixture_features: Tensor


@dataclass(frozen=True)
class Mocae:
    """Everything Stage 2 learned.

    Attributes:
        axes: names, in the order of every vector here.
        layers: decoder layers the signature reads.
        widths: numbers of the signature's blocks, one a layer.
        router_weight: W_r (m, sum of widths) float64, warm start.
        router_bias: (m,) float64.
        coefficients: (3,) a_R, lambda_F a_F, lambda_N a_N; 0 switches a part off.
        scales: (2,) RMS of the centred fractal and natural scores on the calibration split.
        axis_temperature: T of axis_probs.
        best_head: read-out behind best_probs.
        mixture_head: read-out behind the mixture.
        strength: learned scale of an even mixture of all experts; see `expert_scale`.
        plain_temperatures: of the plain router, judged against axis and against best expert.
        fractal: the fractal calibrator, at the deepest layer.
        natural: the natural calibrator, at the deepest layer.
        detector: knows foreign prompts.
        foreign_p_values: p-values between which g falls.
        fallback: what speaks where no expert applies.
        uniform: ablation: every axis weighs the same for every prompt.
    """

    axes: tuple[str, ...]
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    router_weight: Tensor
    router_bias: Tensor
    coefficients: Tensor
    scales: Tensor
    axis_temperature: float
    best_head: Head
    mixture_head: Head
    strength: float
    plain_temperatures: tuple[float, float]
    fractal: FractalCalibrator
    natural: NaturalCalibrator
    detector: ForeignDetector
    foreign_p_values: tuple[float, float]
    fallback: str
    uniform: bool = False

    def route(self, signatures: Tensor) -> Routing:
        """(n, sum of widths) signatures -> routing."""
        parts = self.parts(signatures)
        logits = self.axis_logits(parts)
        used = (self.coefficients[1:] > 0).double()
        scores = torch.cat([used[0] * parts[1], used[1] * parts[2]], dim=1)
        best_features = torch.cat([logits.softmax(dim=1), scores], dim=1)
        mixture_features = torch.cat([logits / self.axis_temperature, scores], dim=1)
        mixture_logits = self.mixture_head.logits(mixture_features)
        known = self.detector.known(self._block(signatures, self.detector.depth), *self.foreign_p_values)
        return Routing(
            axis_probs=(logits / self.axis_temperature).softmax(dim=1),
            best_probs=self.best_head.logits(best_features).softmax(dim=1),
            mixture_logits=torch.zeros_like(mixture_logits) if self.uniform else mixture_logits,
            known=torch.ones_like(known) if self.uniform else known,
            best_features=best_features,
            mixture_features=mixture_features,
        )

    def foreign_scores(self, signatures: Tensor) -> Tensor:
        """(n, sum of widths) signatures -> (n,) the detector's scores, larger is more foreign."""
        return self.detector.scores(self._block(signatures, self.detector.depth))

    def mix(self, routing: Routing, weights: Tensor, floors: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """What the dial makes of a routing.

        Args:
            routing: of n prompts.
            weights: (n, m) or (m,) axis weights.
            floors: (n, m) or (m,) floors.
            strength: (n,) or scalar.

        Returns:
            pi (n, m) and the factor on all experts (n,).
        """
        pi = mixture_weights(routing.mixture_logits, routing.known, weights, floors, fallback=self.fallback)
        learned = torch.tensor(self.strength, dtype=pi.dtype)
        return pi, expert_scale(pi, strength.to(pi), learned)

    def parts(self, signatures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Router logits and both calibrators' centred, scaled scores; (n, m) each, float64."""
        deepest = self._block(signatures, -1)
        fractal = centre_over_axes(self.fractal.scores(deepest).double()) / self.scales[0]
        natural = centre_over_axes(self.natural.scores(deepest).double()) / self.scales[1]
        return self.plain_logits(signatures), fractal, natural

    def axis_logits(self, parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """`parts` -> l (n, m), before T_axis."""
        return torch.stack([a * part for a, part in zip(self.coefficients, parts, strict=True)]).sum(dim=0)

    def plain_logits(self, signatures: Tensor) -> Tensor:
        """Logits of the plain logistic router, no calibrator: the comparator of every calibration table."""
        return signatures.double() @ self.router_weight.T + self.router_bias

    def with_mixture(self, head: Head, strength: float) -> "Mocae":
        """The same routing with another mixture head and strength."""
        return replace(self, mixture_head=head, strength=strength)

    def _block(self, signatures: Tensor, depth: int) -> Tensor:
        return signature_blocks(signatures, self.widths)[depth]

    def tensors(self) -> dict[str, Tensor]:
        """State for safetensors."""
        own = {
            "router_weight": self.router_weight,
            "router_bias": self.router_bias,
            "coefficients": self.coefficients,
            "scales": self.scales,
            "best_head.weight": self.best_head.weight,
            "best_head.bias": self.best_head.bias,
            "mixture_head.weight": self.mixture_head.weight,
            "mixture_head.bias": self.mixture_head.bias,
        }
        for name, part in (("fractal", self.fractal), ("natural", self.natural), ("detector", self.detector)):
            own |= {f"{name}.{key}": tensor for key, tensor in part.tensors().items()}
        return own

    def settings(self) -> dict[str, Any]:
        """State for json; floats are written so that they are read back to the same bits."""
        return {
            "axes": list(self.axes),
            "layers": list(self.layers),
            "widths": list(self.widths),
            "axis_temperature": self.axis_temperature,
            "best_temperature": self.best_head.temperature,
            "mixture_temperature": self.mixture_head.temperature,
            "strength": self.strength,
            "plain_temperatures": list(self.plain_temperatures),
            "foreign_p_values": list(self.foreign_p_values),
            "fallback": self.fallback,
            "uniform": self.uniform,
            "best_head_reads": BEST_HEAD_READS,
            "fractal": self.fractal.settings(),
            "natural": self.natural.settings(),
            "detector": self.detector.settings(),
        }

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> "Mocae":
        """Inverse of `tensors` and `settings`, bit for bit."""
        return cls(
            axes=tuple(settings["axes"]),
            layers=tuple(settings["layers"]),
            widths=tuple(settings["widths"]),
            router_weight=tensors["router_weight"],
            router_bias=tensors["router_bias"],
            coefficients=tensors["coefficients"],
            scales=tensors["scales"],
            axis_temperature=float(settings["axis_temperature"]),
            best_head=Head(tensors["best_head.weight"], tensors["best_head.bias"], settings["best_temperature"]),
            mixture_head=Head(
                tensors["mixture_head.weight"], tensors["mixture_head.bias"], settings["mixture_temperature"]
            ),
            strength=float(settings["strength"]),
            plain_temperatures=(settings["plain_temperatures"][0], settings["plain_temperatures"][1]),
            fractal=FractalCalibrator.from_state(with_prefix(tensors, "fractal."), settings["fractal"]),
            natural=NaturalCalibrator.from_state(with_prefix(tensors, "natural."), settings["natural"]),
            detector=ForeignDetector.from_state(with_prefix(tensors, "detector."), settings["detector"]),
            foreign_p_values=(settings["foreign_p_values"][0], settings["foreign_p_values"][1]),
            fallback=str(settings["fallback"]),
            uniform=bool(settings["uniform"]),
        )
