"""The fractal calibrator: how densely each axis's own training prompts lie around a new prompt.

Legend: `b` prompts, `n` anchors, `n_i` of them axis i's, `m` axes, `k` latent numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from alignx.stage2.dimension import local_dimension, median_distance

__all__ = ["FractalCalibrator"]

# Rows worked on at a time: 32 MiB of matmul distances, 25 MiB of exact differences at k = 256.
_QUERY_BLOCK = 1_024
_ANCHOR_CHUNK = 4_096
_EXACT_BLOCK = 256
# Candidates kept beyond those asked for: one for the row left out, the rest for ties that
# rounding may reorder.
_SPARE = 8


@dataclass(frozen=True, eq=False)
class FractalCalibrator:
    """Scores every axis by the log density of its anchors around a prompt.

    For a prompt x with r_i the distance to axis i's q-th nearest anchor and d(x) the local dimension of all
    anchors pooled, s_i = log(q / n_i) - d(x) log(max(r_i, epsilon)). The dimension is shared, so s_i - s_j is
    a q-nearest-neighbour estimate of the log density ratio of the two axes at x. Distances are in units of
    `scale`.

    Attributes:
        anchors: train rows of all axes; shape (n, k), float32, finite.
        axis_ids: the axis of each anchor, in 0..n_axes-1; shape (n,), int64.
        n_axes: m >= 1; every axis has at least q + 1 anchors.
        scale: median distance between two anchors, > 0, in the anchors' own unit.
        q: which nearest anchor of an axis gives its radius, >= 1.
        epsilon: the radius below which prompts count as one cell, in units of `scale`, > 0.
        neighbours: first and last pooled neighbour of the dimension's fit.

    Raises:
        ValueError: any of the above does not hold.

    Source: Loftsgaarden and Quesenberry 1965, Annals of Mathematical Statistics 36, 1049 to 1051 (the density
    estimate), with the dimension of the space replaced by the local fractal one.
    """

    anchors: Tensor
    axis_ids: Tensor
    n_axes: int
    scale: float
    q: int = 2
    epsilon: float = 0.05
    neighbours: tuple[int, int] = (16, 40)

    def __post_init__(self) -> None:
        _check_settings(self.n_axes, self.q, self.epsilon, self.neighbours)
        _check_anchors(self.anchors, self.axis_ids, self.n_axes, self.q)
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"FractalCalibrator: scale must be a positive number, got {self.scale}.")

    @classmethod
    def fit(
        cls,
        points: Tensor,
        axis_ids: Tensor,
        n_axes: int,
        *,
        epsilon: float = 0.05,
        q: int = 2,
        neighbours: tuple[int, int] = (16, 40),
    ) -> Self:
        """Keep the training rows as anchors and measure their median distance.

        Args:
            points: train rows of all axes, in any order; shape (n, k), any floating dtype (stored as
                float32).
            axis_ids: the axis of each row, in 0..n_axes-1; shape (n,), an integer dtype.
            n_axes: how many axes there are.
            epsilon: smallest radius told apart, in units of the median distance, > 0.
            q: which nearest anchor of an axis gives its radius, >= 1.
            neighbours: first and last pooled neighbour of the dimension's fit, 1 <= first < last.

        Returns:
            The calibrator, on the device of `points`.

        Raises:
            ValueError: shapes differ, values are not finite, a setting is out of range, an axis has fewer
                than q + 1 anchors, or at least half of all pairs of anchors are identical.
        """
        _check_settings(n_axes, q, epsilon, neighbours)
        anchors = points.detach().to(torch.float32, copy=True).contiguous()
        ids = axis_ids.detach().to(anchors.device, torch.int64, copy=True)
        _check_anchors(anchors, ids, n_axes, q)
        scale = median_distance(anchors)
        if scale <= 0:
            raise ValueError(
                "FractalCalibrator: at least half of all pairs of anchors are identical, so there is no "
                "distance to measure in. Drop duplicate prompts, or check that the signatures were not all "
                "computed alike."
            )
        return cls(anchors, ids, n_axes, scale, q, float(epsilon), (int(neighbours[0]), int(neighbours[1])))

    def scores(self, x: Tensor, *, anchor_rows: Tensor | None = None) -> Tensor:
        """Score each axis by the log density of its anchors at each prompt.

        Args:
            x: prompts in the anchors' space; shape (b, k), any floating dtype.
            anchor_rows: for a prompt that is itself an anchor, that anchor's row, which is left out of the
                search (its axis then has n_i - 1 anchors); -1 for none. Shape (b,), an integer dtype. None
                means all -1.

        Returns:
            Shape (b, m), natural logs up to a constant of the prompt; float64 for float64 prompts, else
            float32. With fewer pooled anchors than `neighbours[1]`, the dimension is fitted on those there
            are.

        Raises:
            ValueError: wrong shapes, values that are not finite, or rows outside -1..n-1.
        """
        rows = self._checked_rows(x, anchor_rows)
        lo, hi = self.neighbours
        by_axis = self._nearest(x, rows, keep=max(hi, self.q))  # (b, m, keep)
        pooled = by_axis.flatten(1).sort(dim=1).values[:, :hi]  # (b, <= hi)
        dimension = local_dimension(pooled, lo, hi)  # (b,)
        radius = by_axis[:, :, self.q - 1].clamp_min(self.epsilon)  # (b, m)
        log_share = math.log(self.q) - self._anchors_counted(rows).log()  # (b, m)
        scores = log_share - dimension[:, None] * radius.log()
        return scores.to(torch.promote_types(x.dtype, torch.float32))

    def pooled_radius(self, x: Tensor, *, anchor_rows: Tensor | None = None) -> Tensor:
        """Measure how far each prompt lies from all anchors, whatever their axis; large for foreign prompts.

        Args:
            x: prompts in the anchors' space; shape (b, k), any floating dtype.
            anchor_rows: as in `scores`.

        Returns:
            Distance to the q-th nearest anchor of all pooled, in units of `scale`, >= 0 and not clipped at
            `epsilon`; shape (b,), float64 for float64 prompts, else float32.

        Raises:
            ValueError: as in `scores`.
        """
        rows = self._checked_rows(x, anchor_rows)
        by_axis = self._nearest(x, rows, keep=self.q)
        radius = by_axis.flatten(1).sort(dim=1).values[:, self.q - 1]
        return radius.to(torch.promote_types(x.dtype, torch.float32))

    def tensors(self) -> dict[str, Tensor]:
        """Return what has to be stored as tensors: `anchors` (n, k) float32 and `axis_ids` (n,) int64."""
        return {"anchors": self.anchors, "axis_ids": self.axis_ids}

    def settings(self) -> dict[str, Any]:
        """Return everything else, as JSON can hold it; floats survive JSON bit for bit."""
        return {
            "n_axes": self.n_axes,
            "scale": self.scale,
            "q": self.q,
            "epsilon": self.epsilon,
            "neighbours": list(self.neighbours),
        }

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Rebuild a calibrator from `tensors()` and `settings()`; its scores are the same bit for bit.

        Args:
            tensors: what `tensors()` gave.
            settings: what `settings()` gave, possibly through JSON.

        Returns:
            The calibrator.

        Raises:
            ValueError: a name is missing, or the values do not make a calibrator.
        """
        try:
            lo, hi = settings["neighbours"]
            return cls(
                tensors["anchors"],
                tensors["axis_ids"],
                int(settings["n_axes"]),
                float(settings["scale"]),
                int(settings["q"]),
                float(settings["epsilon"]),
                (int(lo), int(hi)),
            )
        except KeyError as error:
            raise ValueError(f"FractalCalibrator: the stored state lacks {error}; fit the calibrator again.") from error

    def _checked_rows(self, x: Tensor, anchor_rows: Tensor | None) -> Tensor:
        k = self.anchors.shape[1]
        if x.ndim != 2 or x.shape[1] != k or not x.is_floating_point():
            raise ValueError(
                f"FractalCalibrator: expected floating-point prompts of shape (b, {k}), got {x.dtype} {tuple(x.shape)}."
            )
        if not bool(x.isfinite().all()):
            raise ValueError("FractalCalibrator: the prompts hold NaN or infinite values; check the hidden states.")
        if anchor_rows is None:
            return torch.full((x.shape[0],), -1, dtype=torch.int64, device=self.anchors.device)
        rows = anchor_rows.to(self.anchors.device, torch.int64)
        if rows.shape != (x.shape[0],):
            raise ValueError(
                f"FractalCalibrator: anchor_rows must have shape ({x.shape[0]},), got {tuple(rows.shape)}."
            )
        n = self.anchors.shape[0]
        if bool(((rows < -1) | (rows >= n)).any()):
            raise ValueError(f"FractalCalibrator: anchor_rows must lie in -1..{n - 1}; -1 stands for no anchor.")
        return rows

    def _anchors_counted(self, rows: Tensor) -> Tensor:
        """Count each axis's anchors as seen from each prompt, its own row left out; shape (b, m), float64."""
        counts = torch.bincount(self.axis_ids, minlength=self.n_axes).double().repeat(rows.numel(), 1)
        own = (rows >= 0).nonzero().squeeze(1)
        counts[own, self.axis_ids[rows[own]]] -= 1
        return counts

    def _nearest(self, x: Tensor, rows: Tensor, *, keep: int) -> Tensor:
        """Find the `keep` nearest anchors of every axis.

        Returns:
            Distances in units of `scale`, ascending, infinite where the axis has no more anchors; shape
            (b, m, keep), float64.
        """
        by_axis = [(self.axis_ids == axis).nonzero().squeeze(1) for axis in range(self.n_axes)]
        # Distances do not change when everything is shifted; small norms keep the matmul form accurate.
        origin = self.anchors.mean(dim=0, dtype=torch.float64)
        out = torch.full((x.shape[0], self.n_axes, keep), math.inf, dtype=torch.float64, device=self.anchors.device)
        for start in range(0, x.shape[0], _QUERY_BLOCK):
            block = slice(start, start + _QUERY_BLOCK)
            queries = x[block].to(self.anchors.device, torch.float64)
            for axis, members in enumerate(by_axis):
                candidates = _candidates(queries, self.anchors, members, origin, keep + _SPARE)
                exact = _exact_distances(queries, self.anchors, candidates)
                exact = exact.masked_fill(candidates == rows[block, None], math.inf)
                found = exact.sort(dim=1).values[:, :keep] / self.scale
                out[block, axis, : found.shape[1]] = found
        return out


def _candidates(queries: Tensor, anchors: Tensor, members: Tensor, origin: Tensor, keep: int) -> Tensor:
    """Pick the `keep` likely nearest of an axis's anchors by matmul distance, as a running best over chunks.

    Returns:
        Rows of `anchors`; shape (b, min(keep, n_i)).
    """
    centred = queries - origin
    best = torch.empty(queries.shape[0], 0, dtype=torch.float64, device=queries.device)
    best_rows = torch.empty(queries.shape[0], 0, dtype=torch.int64, device=queries.device)
    for chunk in torch.split(members, _ANCHOR_CHUNK):
        some = anchors[chunk].double() - origin  # (c, k)
        # |x - y|^2 less |x|^2, which is the same for all anchors of a row.
        ranking = torch.addmm((some * some).sum(dim=1), centred, some.T, alpha=-2.0)  # (b, c)
        near, place = ranking.topk(min(keep, chunk.numel()), dim=1, largest=False, sorted=False)
        best = torch.cat([best, near], dim=1)
        best_rows = torch.cat([best_rows, chunk[place]], dim=1)
        best, place = best.topk(min(keep, best.shape[1]), dim=1, largest=False, sorted=False)
        best_rows = best_rows.gather(1, place)
    return best_rows


def _exact_distances(queries: Tensor, anchors: Tensor, candidates: Tensor) -> Tensor:
    """Measure distances by differences, which unlike the matmul form are right near zero; shape (b, c)."""
    blocks = zip(torch.split(queries, _EXACT_BLOCK), torch.split(candidates, _EXACT_BLOCK), strict=True)
    return torch.cat([(anchors[rows] - some[:, None, :]).norm(dim=2) for some, rows in blocks])


def _check_settings(n_axes: int, q: int, epsilon: float, neighbours: tuple[int, int]) -> None:
    if n_axes < 1:
        raise ValueError(f"FractalCalibrator: n_axes must be at least 1, got {n_axes}.")
    if q < 1:
        raise ValueError(f"FractalCalibrator: q must be at least 1 (the nearest anchor), got {q}.")
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(
            f"FractalCalibrator: epsilon must be a positive number in units of the median distance, got {epsilon}."
        )
    if len(neighbours) != 2 or not 1 <= neighbours[0] < neighbours[1]:
        raise ValueError(f"FractalCalibrator: neighbours must be (lo, hi) with 1 <= lo < hi, got {neighbours}.")


def _check_anchors(anchors: Tensor, axis_ids: Tensor, n_axes: int, q: int) -> None:
    if anchors.ndim != 2 or anchors.shape[1] < 1 or anchors.dtype != torch.float32:
        raise ValueError(
            f"FractalCalibrator: expected float32 anchors of shape (n, k), got {anchors.dtype} {tuple(anchors.shape)}."
        )
    if axis_ids.shape != anchors.shape[:1] or axis_ids.dtype != torch.int64:
        raise ValueError(
            f"FractalCalibrator: expected one int64 axis id an anchor, shape ({anchors.shape[0]},), got "
            f"{axis_ids.dtype} {tuple(axis_ids.shape)}."
        )
    if not bool(anchors.isfinite().all()):
        raise ValueError("FractalCalibrator: the anchors hold NaN or infinite values; check the hidden states.")
    if bool(((axis_ids < 0) | (axis_ids >= n_axes)).any()):
        raise ValueError(f"FractalCalibrator: axis ids must lie in 0..{n_axes - 1}.")
    counts = torch.bincount(axis_ids, minlength=n_axes).tolist()
    short = {axis: count for axis, count in enumerate(counts) if count < q + 1}
    if short:
        raise ValueError(
            f"FractalCalibrator: every axis needs at least q + 1 = {q + 1} anchors, but (axis: anchors) "
            f"{short}. Add training prompts to those axes, or lower q."
        )
