"""Reading a mixture: its tensors must fit its settings before it is believed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignx.errors import ArtifactError
from alignx.runs.tensor_schema import Spec, check_tensors
from alignx.stage2.mocae import BEST_HEAD_READS, Mocae


def checked_mocae(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], path: Path) -> Mocae:
    """A mixture from what its files hold; `path` names the tensors' file in messages.

    Raises:
        ArtifactError: another version's head, or a tensor is missing, not known, or of another dtype or shape than the
            settings ask for.
        KeyError, TypeError, ValueError, IndexError: a setting is missing or is no such value.
    """
    n_axes, widths = len(settings["axes"]), [int(width) for width in settings["widths"]]
    if settings.get("best_head_reads") != BEST_HEAD_READS:
        raise ArtifactError(
            f"{path}: its best-expert head reads {settings.get('best_head_reads', 'l, s^F, s^N')!r:.60}, as another "
            f"version of AlignX made it (this one's reads {BEST_HEAD_READS!r}); run `alignx stage2` on the run again"
        )
    deepest, depth = widths[-1], widths[int(settings["detector"]["depth"])]
    expected = _own(n_axes, sum(widths)) | _calibrators("", n_axes, deepest)
    expected |= _calibrators("detector.", n_axes, depth)
    for name in ("centre", "spread"):
        expected[f"detector.{name}"] = (torch.float64, (2,))
    if "detector.foreign" in tensors:  # mixtures made before it was kept do without
        expected["detector.foreign"] = (torch.float32, ("foreign prompts", depth))
    expected["detector.reference"] = (torch.float64, ("calibration prompts",))
    check_tensors(path, tensors, expected)
    if settings["fallback"] not in {"prior", "base"}:
        raise ValueError(f"fallback {settings['fallback']!r:.40} is neither `prior` nor `base`")
    return Mocae.from_state(tensors, settings)


def _own(n_axes: int, signature_width: int) -> dict[str, Spec]:
    heads: dict[str, Spec] = {}
    for head in ("best_head", "mixture_head"):
        heads[f"{head}.weight"] = (torch.float64, (n_axes, 3 * n_axes))
        heads[f"{head}.bias"] = (torch.float64, (n_axes,))
    return {
        "router_weight": (torch.float64, (n_axes, signature_width)),
        "router_bias": (torch.float64, (n_axes,)),
        "coefficients": (torch.float64, (3,)),
        "scales": (torch.float64, (2,)),
        **heads,
    }


def _calibrators(prefix: str, n_axes: int, width: int) -> dict[str, Spec]:
    return {
        f"{prefix}fractal.anchors": (torch.float32, ("anchors", width)),
        f"{prefix}fractal.axis_ids": (torch.int64, ("anchors",)),
        f"{prefix}natural.means": (torch.float64, (n_axes, width)),
        f"{prefix}natural.whitening": (torch.float64, (width, width)),
        f"{prefix}natural.counts": (torch.int64, (n_axes,)),
    }
