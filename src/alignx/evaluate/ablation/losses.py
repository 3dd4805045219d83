"""Losses of mixtures on prompts, each scored once: kept by prompt and gate weights, whatever row asks for them."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.models.fold import Updates, folded
from alignx.models.gated import GatedModel
from alignx.models.load import BaseModel
from alignx.models.precision import resolved_precision
from alignx.models.scoring import PromptAnswers
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.files import read_jsonl, write_jsonl
from alignx.stage2.pipeline import target_losses

# Gates that agree to so many digits are one mixture: a loss moves by less than 1e-4 nats between them.
_DIGITS = 4
STEP = "ablate-losses"


class KeptLosses:
    """Losses on disk (`eval/ablate/losses.jsonl`) and the model that makes those that are missing.

    Args:
        config: the run's config.
        run: the run directory.
        base: loaded base, gated.
        gated: its gates.
        items: prompts with their targets, one answer each.
        made_from: fingerprint of the experts.
    """

    def __init__(
        self,
        config: RunConfig,
        run: RunDirectory,
        base: BaseModel,
        gated: GatedModel,
        items: Sequence[PromptAnswers],
        made_from: str,
    ) -> None:
        self.config, self.run, self.base, self.gated, self.items = config, run, base, gated, items
        self.path = run.evaluation_folder("ablate") / "losses.jsonl"
        asked = [made_from, gated.names, resolved_precision(config.evaluate.precision)]
        self._asked = [fingerprint([*asked, item.prompt_ids, item.answers]) for item in items]
        self._losses = self._read()
        self.n_scored = 0

    def losses(self, rows: Sequence[int], weights: Tensor, updates: Updates, what: str) -> Tensor:
        """Losses (len(rows),) of the named items, float64; those that are not kept are scored and kept.

        Args:
            rows: places among the items.
            weights: (len(rows), adapters) gates.
            updates: dense updates folded into the base meanwhile; whose `what` then names them.
            what: the row's name.
        """
        folds = what if updates else ""
        keys = [
            fingerprint([self._asked[row], folds, [round(value, _DIGITS) for value in gate]])
            for row, gate in zip(rows, weights.tolist(), strict=True)
        ]
        missing = [place for place, key in enumerate(keys) if key not in self._losses]
        if missing:
            with folded(self.base.model, updates) if updates else nullcontext():
                found = target_losses(
                    self.base,
                    [self.items[rows[place]] for place in missing],
                    self.gated,
                    weights[missing],
                    self.config,
                    f"score {what}",
                )
            self._losses |= dict(zip((keys[place] for place in missing), found.tolist(), strict=True))
            self.n_scored += len(missing)
            write_jsonl(self.path, [{"key": key, "loss": loss} for key, loss in self._losses.items()])
            self.run.mark_done(STEP, {}, self.path)
        return torch.tensor([self._losses[key] for key in keys], dtype=torch.float64)

    def _read(self) -> dict[str, float]:
        if not self.path.is_file():
            return {}
        try:
            self.run.check(STEP)
            return {str(row["key"]): float(row["loss"]) for row in read_jsonl(self.path)}
        except (ArtifactError, KeyError, TypeError, ValueError) as error:
            notice(f"{str(error).partition('; ')[0]}; scoring again")
            return {}
