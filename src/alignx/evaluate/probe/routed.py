"""What a mixture says about a set of prompts, side by side: the numbers every figure of the probes is made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignx.evaluate.methods import neutral_mixture
from alignx.models.load import BaseModel
from alignx.stage1.latent import LatentSpace
from alignx.stage2.mocae import Mocae
from alignx.stage2.pipeline import read_signatures

# A prompt counts as foreign when the fallback has more say than the router, as `out_of_distribution` does.
FLAGGED_BELOW = 0.5


@dataclass(frozen=True)
class RoutedPrompts:
    """Routing of n prompts; arrays are float64.

    Attributes:
        axes: names, in the order of the columns.
        tokens: (n,) tokens of each prompt, its template included.
        signatures: (n, sum of widths).
        known: (n,) g in [0, 1].
        foreign_scores: (n,) the detector's.
        pi: (n, m) mixture weights with the dial at rest.
        axis_probs: (n, m).
        best_probs: (n, m).
        plain_probs: (n, m) of the plain router.
        plain_tempered: (n, m) the same with the temperature fitted for it.
    """

    axes: tuple[str, ...]
    tokens: NDArray[np.float64]
    signatures: Tensor
    known: NDArray[np.float64]
    foreign_scores: NDArray[np.float64]
    pi: NDArray[np.float64]
    axis_probs: NDArray[np.float64]
    best_probs: NDArray[np.float64]
    plain_probs: NDArray[np.float64]
    plain_tempered: NDArray[np.float64]

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """(n,) whether the detector calls a prompt foreign."""
        return self.known < FLAGGED_BELOW

    def row(self, number: int) -> dict[str, Any]:
        """One prompt's numbers, for jsonl."""
        return {
            "tokens": int(self.tokens[number]),
            "known": float(self.known[number]),
            "out_of_distribution": bool(self.flagged[number]),
            "foreign_score": float(self.foreign_scores[number]),
            **{
                name: dict(zip(self.axes, getattr(self, name)[number].tolist(), strict=True))
                for name in ("pi", "axis_probs", "best_probs", "plain_probs")
            },
        }


def route_prompts(
    base: BaseModel, space: LatentSpace, mocae: Mocae, prompts: Sequence[Sequence[int]], *, what: str
) -> RoutedPrompts:
    """Route prompts given as token ids; `what` is shown as progress."""
    signatures = read_signatures(base, space, prompts, what=what)
    routing = mocae.route(signatures)
    pi, _ = neutral_mixture(mocae, routing)
    plain = mocae.plain_logits(signatures)
    return RoutedPrompts(
        axes=mocae.axes,
        tokens=np.array([len(prompt) for prompt in prompts], dtype=np.float64),
        signatures=signatures,
        known=routing.known.numpy(),
        foreign_scores=mocae.foreign_scores(signatures).numpy(),
        pi=pi.numpy(),
        axis_probs=routing.axis_probs.numpy(),
        best_probs=routing.best_probs.numpy(),
        plain_probs=plain.softmax(dim=1).numpy(),
        plain_tempered=(plain / mocae.plain_temperatures[0]).softmax(dim=1).numpy(),
    )


def guarded_weights(mocae: Mocae, routed: RoutedPrompts, floors: dict[str, float]) -> NDArray[np.float64]:
    """(n, m) mixture weights with floors and otherwise the dial at rest."""
    flat = torch.ones(len(mocae.axes), dtype=torch.float64)
    floor = torch.tensor([floors.get(axis, 0.0) for axis in mocae.axes], dtype=torch.float64)
    pi, _ = mocae.mix(mocae.route(routed.signatures), flat, floor, torch.tensor(1.0, dtype=torch.float64))
    weights: NDArray[np.float64] = pi.numpy()
    return weights
