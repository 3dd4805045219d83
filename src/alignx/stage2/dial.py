"""The user's dial: axis weights, floors and strength, and what they make of the router's opinion."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from numbers import Real

import torch
from torch import Tensor

from alignx.errors import DialError


@dataclass(frozen=True)
class Dial:
    """How far a request leans.

    Attributes:
        weights: axis -> positive factor on its odds; 0 switches it off; axes not named weigh 1.
        floors: axis -> least share of the mixture it gets, whatever the prompt; in [0, 1].
        strength: scale of all experts; 0 is the base, negative negates.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    strength: float = 1.0

    def weight_vector(self, axes: Sequence[str]) -> Tensor:
        """(m,) float64 weights in the order of `axes`.

        Raises:
            DialError: unknown axis, negative or non-finite weight, or all weights 0.
        """
        vector = _vector(self.weights, axes, "weight", default=1.0)
        if not bool((vector > 0).any()):
            raise DialError("all axis weights are 0; leave at least one axis on, or use --strength 0 for the base")
        return vector

    def floor_vector(self, axes: Sequence[str]) -> Tensor:
        """(m,) float64 floors in the order of `axes`.

        Raises:
            DialError: unknown axis, a floor outside [0, 1], floors that add up to more than 1, or a floor on an axis
                whose weight is 0.
        """
        vector = _vector(self.floors, axes, "floor", default=0.0)
        total = float(vector.sum())
        if total > 1 + 1e-9:
            raise DialError(f"floors add up to {total:g}, more than 1; lower them")
        for axis, floor, weight in zip(axes, vector.tolist(), self.weight_vector(axes).tolist(), strict=True):
            if floor > 0 and weight == 0:
                raise DialError(f"floor {axis}={floor:g} contradicts weight {axis}=0; drop one of them")
        return vector

    def checked_strength(self) -> float:
        """The strength.

        Raises:
            DialError: not a finite number.
        """
        if not _is_number(self.strength):
            raise DialError(f"strength {self.strength!r} must be a finite number, e.g. 1")
        return float(self.strength)


def mixture_weights(
    mixture_logits: Tensor, known: Tensor, weights: Tensor, floors: Tensor, *, fallback: str = "prior"
) -> Tensor:
    """Weights pi of the experts.

    p = softmax(l_mix + log w); c = g p + (1 - g) f; pi = floors + (1 - sum floors) c.

    Args:
        mixture_logits: (b, m) l_mix / T.
        known: (b,) g in [0, 1]: 1 where an expert applies.
        weights: (b, m) or (m,) axis weights, not negative, some positive.
        floors: (b, m) or (m,) floors.
        fallback: `prior` (f = w / sum w) or `base` (f = 0).

    Returns:
        (b, m); rows sum to 1 with fallback `prior`, to at most 1 with `base`.
    """
    weights, floors = (value.to(mixture_logits).expand_as(mixture_logits) for value in (weights, floors))
    probs = (mixture_logits + weights.log()).softmax(dim=1)
    # The largest becomes 1 first: a sum of very large weights would be infinite.
    relative = weights / weights.amax(dim=1, keepdim=True)
    prior = relative / relative.sum(dim=1, keepdim=True) if fallback == "prior" else torch.zeros_like(weights)
    g = known.to(mixture_logits)[:, None]
    return floors + (1 - floors.sum(dim=1, keepdim=True)) * (g * probs + (1 - g) * prior)


def expert_scale(pi: Tensor, strength: Tensor, learned_strength: Tensor) -> Tensor:
    """Factor on all experts of a prompt: strength * learned ** evenness(pi).

    A mixture of nearly orthogonal updates is shorter than any of them; the learned strength makes up for that. Its
    exponent is the entropy of pi over log m, so an expert that speaks alone is used exactly as it was trained.

    Args:
        pi: (b, m) mixture weights.
        strength: (b,) or scalar, the user's.
        learned_strength: scalar, positive.

    Returns:
        (b,).
    """
    share = pi / pi.sum(dim=1, keepdim=True).clamp_min(1e-12)
    # Not xlogy: its gradient is NaN where a share is 0.
    entropy = -(share * share.clamp_min(1e-300).log()).sum(dim=1)
    evenness = entropy / math.log(pi.shape[1]) if pi.shape[1] > 1 else torch.zeros_like(entropy)
    return strength * learned_strength**evenness


def _vector(values: Mapping[str, float], axes: Sequence[str], what: str, *, default: float) -> Tensor:
    for axis, value in values.items():
        if axis not in axes:
            near = get_close_matches(axis, axes, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"axes of this run: {', '.join(axes)}"
            raise DialError(f"{what} {axis}={value}: unknown axis; {hint}")
        if not _is_number(value) or value < 0:
            raise DialError(f"{what} {axis}={value}: must be a finite number, 0 or more")
    return torch.tensor([float(values.get(axis, default)) for axis in axes], dtype=torch.float64)


def _is_number(value: object) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond every float
        return False
