"""What a tensor file must hold: names, dtypes and shapes, compared before anything is computed from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from alignx.errors import ArtifactError

# A size is a number, or a letter that must stand for the same number wherever it occurs.
Spec = tuple[torch.dtype, Sequence[int | str]]


def check_tensors(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Spec]) -> None:
    """Compare tensors with what they must be.

    Args:
        path: their file, named in messages.
        tensors: what it holds.
        expected: name -> dtype and sizes.

    Raises:
        ArtifactError: one is missing, not known, or of another dtype or shape.
    """
    remedy = "remove it and run the step that makes it again"
    for name in [*sorted(expected.keys() - tensors.keys()), *sorted(tensors.keys() - expected.keys())]:
        fault = "is missing" if name in expected else "does not belong there"
        raise ArtifactError(f"{path}: tensor `{name:.80}` {fault}; {remedy}")
    sizes: dict[str, int] = {}
    for name, (dtype, shape) in expected.items():
        found = tensors[name]
        if found.dtype != dtype:
            raise ArtifactError(f"{path}: tensor `{name}` is {found.dtype}, expected {dtype}; {remedy}")
        fits = len(shape) == found.dim() and all(
            size == (wanted if isinstance(wanted, int) else sizes.setdefault(wanted, size))
            for size, wanted in zip(found.shape, shape, strict=False)
        )
        if not fits:
            wanted = " x ".join(str(sizes.get(str(size), size)) for size in shape)
            raise ArtifactError(f"{path}: tensor `{name}` is {tuple(found.shape)}, expected {wanted}; {remedy}")
