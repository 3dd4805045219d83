"""Parameter matrix: every adapted module's update sketched to k numbers.

P[module] = R1 (s B A) R2^T with Gaussian R1 (k1, out), R2 (k2, in) of variances 1/k1 and 1/k2, computed from the
factors. Row inner products estimate the true ones without bias (Johnson-Lindenstrauss); single values are noisy.
"""

import hashlib

import torch
from torch import Tensor

from alignx.stage1.task_vector import TaskVector


def parameter_matrix(task_vector: TaskVector, k: int, *, seed: int = 0) -> Tensor:
    """Sketch a task vector, one row a module in order of name.

    Args:
        task_vector: the expert.
        k: numbers a module; factored k1 x k2 as squarely as possible.
        seed: another seed gives an independent sketch; axes to be compared must share it.

    Returns:
        (modules, k) float32.
    """
    k1, k2 = squarest_factors(k)
    rows = []
    for name in sorted(task_vector.updates):
        update = task_vector.updates[name]
        generator = torch.Generator().manual_seed(module_seed(name, seed))
        left = torch.randn(k1, update.b.shape[0], generator=generator) / k1**0.5
        right = torch.randn(k2, update.a.shape[1], generator=generator) / k2**0.5
        sketch = update.scale * (left @ update.b.float()) @ (update.a.float() @ right.T)
        rows.append(sketch.flatten())
    return torch.stack(rows)


def squarest_factors(k: int) -> tuple[int, int]:
    """k1 * k2 = k with k1 <= k2 as close as possible."""
    k1 = next(divisor for divisor in range(int(k**0.5), 0, -1) if k % divisor == 0)
    return k1, k // k1


def module_seed(name: str, seed: int) -> int:
    """Seed by the module's name: the same for all axes, independent between modules."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") >> 1
