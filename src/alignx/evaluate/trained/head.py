"""The head of a trained judge: logistic regression on principal directions of the features, folded into one vector.

The penalty is chosen, and the temperature fitted, on folds of the training prompts: no prompt is on both sides of a
fold, because the answers of a prompt resemble each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignx.errors import DataError
from alignx.stage2.logistic import fit_logistic, fit_temperature

PENALTIES: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)
_DIRECTIONS = 256
_N_FOLDS = 5


@dataclass(frozen=True)
class Head:
    """Features -> probability of a positive.

    Attributes:
        weight: (d,) float32.
        bias: (1,) float32.
    """

    weight: Tensor
    bias: Tensor

    def probabilities(self, features: Tensor) -> list[float]:
        """Of each row of (n, d) features, in [0, 1]."""
        logits = features.double() @ self.weight.double() + self.bias.double()
        return [float(value) for value in logits.sigmoid()]


@dataclass(frozen=True)
class FittedHead:
    """A head, and what was chosen for it on folds of the training prompts."""

    head: Head
    penalty: float
    temperature: float


def fit_head(features: Tensor, positive: Sequence[bool], prompts: Sequence[str], *, seed: int = 0) -> FittedHead:
    """Fit a head.

    Args:
        features: (n, d) float32.
        positive: labels; (n,).
        prompts: id of each answer's prompt; (n,).
        seed: of folds and directions.

    Raises:
        DataError: fewer than two prompts of either label.
    """
    for label, name in ((True, "positive"), (False, "negative")):
        n_prompts = len({prompt for prompt, of in zip(prompts, positive, strict=True) if of is label})
        if n_prompts < 2:
            raise DataError(
                f"training answers with a {name} label come from {n_prompts} prompt(s); give data with at least 2 of "
                "either label"
            )
    mean, scale = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
    directions = _directions((features - mean) / scale, seed)
    seen = ((features - mean) / scale) @ directions
    targets = torch.tensor([[not of, of] for of in positive], dtype=torch.float64)
    folds = _folds(prompts, seed)
    held = {penalty: _held_out_logits(seen, targets, folds, penalty) for penalty in PENALTIES}
    losses = {
        penalty: -float((targets * logits.log_softmax(dim=1)).sum(dim=1).mean()) for penalty, logits in held.items()
    }
    penalty = min(losses, key=lambda one: losses[one])
    rows = torch.ones(len(positive), dtype=torch.float64)
    temperature = fit_temperature(held[penalty], targets.bool(), rows)
    w, b = fit_logistic(seen, targets, rows, l2=penalty)
    weight = directions.double() @ ((w[1] - w[0]) / temperature) / scale.double()
    bias = (b[1] - b[0]) / temperature - mean.double() @ weight
    return FittedHead(Head(weight.float(), bias.float()[None]), penalty, temperature)


def _directions(standardised: Tensor, seed: int) -> Tensor:
    """(d, k) principal directions, scaled so that the first coordinate has unit variance."""
    n, d = standardised.shape
    wanted = min(_DIRECTIONS, n - 1, d)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, singular, directions = torch.svd_lowrank(standardised, q=wanted, niter=4)
    scaled: Tensor = directions / (singular[0] / n**0.5).clamp_min(1e-6)
    return scaled


def _folds(prompts: Sequence[str], seed: int) -> Tensor:
    """(n,) fold of each row; all rows of a prompt share one."""
    distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed)) % min(_N_FOLDS, len(distinct))
    return order[[distinct[prompt] for prompt in prompts]]


def _held_out_logits(seen: Tensor, targets: Tensor, folds: Tensor, penalty: float) -> Tensor:
    """(n, 2) logits of every row by the fit that did not see its fold."""
    logits = torch.zeros(len(seen), 2, dtype=torch.float64)
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        rows = torch.ones(int((~held).sum()), dtype=torch.float64)
        w, b = fit_logistic(seen[~held], targets[~held], rows, l2=penalty)
        logits[held] = seen[held].double() @ w.T + b
    return logits
