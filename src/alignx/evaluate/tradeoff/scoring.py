"""Scores of many settings on the same prompts, kept prompt by prompt so that no mixture is scored twice on one."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.evaluate.likelihood.judge import LikelihoodItem, judge, safe_margin
from alignx.models.fold import Updates, folded
from alignx.models.gated import GatedModel
from alignx.models.load import BaseModel
from alignx.models.precision import resolved_precision
from alignx.models.scoring import answer_log_probs
from alignx.progress import notice
from alignx.runs.directory import fingerprint
from alignx.runs.files import read_jsonl, write_jsonl


@dataclass(frozen=True)
class Mixture:
    """What one setting makes of the prompts.

    Attributes:
        name: the setting's.
        weights: (n, adapters) of the installed adapters; none is the bare base.
        updates: dense updates folded into the base while it is scored.
        made_from: fingerprint of the dense updates; empty without any.
    """

    name: str
    weights: Tensor | None
    updates: Updates = field(default_factory=dict)
    made_from: str = ""


@dataclass(frozen=True)
class PromptScore:
    """What the likelihood judge says of one mixture on one prompt; see `Judgement` for all but `safe_margin`.

    Attributes:
        loss: mean nats a target token.
        safe_preferred: share of the unsafe answers that are less likely a token than the target.
        safe_margin: how much likelier the target is, nats a token.
        mc1: 1 or 0.
        mc2: share of probability on true answers.
    """

    loss: float
    safe_preferred: float | None = None
    safe_margin: float | None = None
    mc1: float | None = None
    mc2: float | None = None


class Scorer:
    """Scores mixtures on a fixed list of prompts and keeps every score in a file as it goes.

    A score's key is the fingerprint of everything it depends on: the prompt with its answers, the precision, and the
    adapters that are on with their weights. Settings that come to the same mixture for a prompt share it.

    Args:
        config: says precision and batch size.
        base: the base.
        gated: its adapters, installed.
        adapters: adapter -> fingerprint of its training.
        items: the prompts.
        path: the file of scores.
    """

    def __init__(
        self,
        config: RunConfig,
        base: BaseModel,
        gated: GatedModel,
        adapters: Mapping[str, str],
        items: Sequence[LikelihoodItem],
        path: Path,
    ) -> None:
        self.config, self.base, self.gated = config, base, gated
        self.adapters, self.items, self.path = adapters, list(items), path
        precision = resolved_precision(config.evaluate.precision)
        self._asked = [
            fingerprint([asdict(item.example), item.parts[0].prompt_ids, item.parts[0].answers, precision])
            for item in items
        ]
        self._known = read_scores(path)

    def scores(self, mixture: Mixture) -> list[PromptScore]:
        """Scores of a mixture on every prompt; what is missing is scored and kept before this returns."""
        keys = self._keys(mixture)
        missing = [row for row, key in enumerate(keys) if key not in self._known]
        if missing:
            chosen = [self.items[row] for row in missing]
            with folded(self.base.model, mixture.updates) if mixture.updates else nullcontext():
                log_probs = answer_log_probs(
                    self.base,
                    [item.parts[0] for item in chosen],
                    gated=self.gated,
                    weights=None if mixture.weights is None else mixture.weights[missing],
                    batch_size=self.config.evaluate.batch_size,
                    precision=self.config.evaluate.precision,
                    description=f"score {mixture.name}",
                )
            for row, item, found in zip(missing, chosen, log_probs, strict=True):
                self._known[keys[row]] = _score(item, found)
            write_scores(self.path, self._known)
        return [self._known[key] for key in keys]

    def _keys(self, mixture: Mixture) -> list[str]:
        n = len(self.items)
        weights = torch.zeros(n, len(self.gated.names)) if mixture.weights is None else mixture.weights
        keys = []
        for asked, row in zip(self._asked, weights.tolist(), strict=True):
            pairs = zip(self.gated.names, row, strict=True)
            on = {name: [self.adapters[name], weight] for name, weight in pairs if weight != 0}
            keys.append(fingerprint([asked, on, mixture.made_from]))
        return keys


def write_scores(path: Path, scores: Mapping[str, PromptScore]) -> None:
    """Write scores by key, each row with its own checksum."""
    rows = ((key, asdict(score)) for key, score in scores.items())
    write_jsonl(path, [{"key": key, "checksum": fingerprint([key, values]), **values} for key, values in rows])


def read_scores(path: Path) -> dict[str, PromptScore]:
    """Scores kept from before, without rows that are not what was written; nothing where there is no file."""
    if not path.is_file():
        return {}
    try:
        rows = read_jsonl(path)
    except ArtifactError as error:
        notice(f"{str(error).partition('; ')[0]}; scoring again")
        return {}
    found = {}
    for row in rows:
        given = row if isinstance(row, dict) else {}
        key, values = given.get("key"), {one.name: given.get(one.name) for one in fields(PromptScore)}
        if isinstance(key, str) and given.get("checksum") == fingerprint([key, values]):
            found[key] = PromptScore(**values)  # type: ignore[arg-type]  # the checksum vouches for them
    if len(found) < len(rows):
        notice(f"{path}: {len(rows) - len(found)} rows are not what was written; scoring those again")
    return found


def _score(item: LikelihoodItem, log_probs: Sequence[float]) -> PromptScore:
    judged = judge("", item, log_probs)
    margin = safe_margin(item, log_probs)
    return PromptScore(judged.loss, judged.safe_preferred, margin, judged.mc1, judged.mc2)


def mean_scores(repeats: Sequence[Sequence[PromptScore]]) -> list[PromptScore]:
    """Of a method that was scored with several seeds: the mean, prompt by prompt."""

    def mean(scores: Sequence[PromptScore]) -> PromptScore:
        values = {one.name: [getattr(score, one.name) for score in scores] for one in fields(PromptScore)}
        means: dict[str, Any] = {name: None if None in row else float(np.mean(row)) for name, row in values.items()}
        return PromptScore(**means)

    return [mean(scores) for scores in zip(*repeats, strict=True)]
