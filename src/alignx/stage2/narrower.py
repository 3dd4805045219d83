"""The same prompts in a smaller latent space: only the first k principal directions of every depth."""

from dataclasses import replace

import torch
from torch import Tensor

from alignx.stage1.latent import signature_blocks
from alignx.stage2.fit import FittingInputs, SplitFeatures
from alignx.stage2.logistic import equal_axis_weights


class Narrowing:
    """Cuts signatures to k directions a depth, each block at unit RMS again over the training prompts.

    Directions are ordered by variance, so what remains is what Stage 1 would have made with that `latent_size` (but for
    rounding).

    Args:
        inputs: the wide features; the scales come from its train split, every axis weighing the same.
        k: directions a depth; a block that has fewer keeps them.
    """

    def __init__(self, inputs: FittingInputs, k: int) -> None:
        self.inputs = inputs
        self.widths = tuple(min(k, width) for width in inputs.widths)
        weights = equal_axis_weights(inputs.train.axis_ids, len(inputs.axes))
        weights = weights / weights.sum()
        blocks = signature_blocks(inputs.train.signatures, inputs.widths)
        self.scales = [
            float(1 / (weights @ block[:, :width].double().square().mean(dim=1)).sqrt().clamp_min(1e-12))
            for block, width in zip(blocks, self.widths, strict=True)
        ]

    def signatures(self, signatures: Tensor) -> Tensor:
        """(n, sum of wide widths) -> (n, sum of narrow widths)."""
        blocks = signature_blocks(signatures, self.inputs.widths)
        return torch.cat(
            [block[:, :w] * scale for block, w, scale in zip(blocks, self.widths, self.scales, strict=True)], dim=1
        )

    def fitting_inputs(self) -> FittingInputs:
        """All splits, narrow."""
        wide = self.inputs

        def narrow(split: SplitFeatures) -> SplitFeatures:
            return replace(split, signatures=self.signatures(split.signatures))

        return replace(
            wide,
            widths=self.widths,
            train=narrow(wide.train),
            mix=narrow(wide.mix),
            calibration=narrow(wide.calibration),
            foreign=self.signatures(wide.foreign),
        )
