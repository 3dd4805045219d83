"""A judge that `alignx judge train` made: a head on hidden states of a small model that runs here.

It never judges an answer to a prompt that it was trained on: `trained_on` names them, and whoever asks leaves them out.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from alignx.data.example import hash_prompt
from alignx.errors import JudgeError
from alignx.evaluate.judges.endpoint import estimated_tokens
from alignx.evaluate.judges.interface import Item, Judgement, Usage
from alignx.evaluate.judges.settings import TrainedSettings
from alignx.evaluate.trained.artifact import read_trained
from alignx.evaluate.trained.features import answer_features, encode_answers
from alignx.evaluate.trained.head import Head
from alignx.evaluate.trained.labelled import KINDS
from alignx.models.load import BaseModel

PREFIX = "trained-"


class TrainedJudge:
    """Reads prompt and answer with the model it was trained on.

    Args:
        kind: `moderation`, `truth` or `info`.
        settings: where it lies, threshold, batch size.

    Raises:
        ConfigError: no judge at its place.
        ArtifactError: damaged, or a judge of another kind.
    """

    is_remote = False

    def __init__(self, kind: str, settings: TrainedSettings) -> None:
        self.name = PREFIX + kind
        self.settings = settings
        self.artifact = read_trained(Path(getattr(settings, kind)), kind=kind)
        self.model = self.artifact.identity
        self.batch_size = settings.batch_size
        self.trained_on = self.artifact.trained_on
        self.held_out: Mapping[str, Any] | None = self.artifact.held_out
        self._question = KINDS[kind]

    def questions(self, dataset: str) -> Sequence[str]:
        """Its one question; truth and informativeness only where an axis has data."""
        return () if dataset == "overrefusal" and self.name != f"{PREFIX}moderation" else (self._question,)

    def template(self, question: str) -> str:
        """The threshold; the weights are in the name of the model."""
        return json.dumps([question, self.settings.threshold])

    def estimate(self, item: Item) -> Usage:
        """Tokens by length; it costs nothing but time."""
        reading = self.artifact.reading
        prompt = min(reading.prompt_tokens, estimated_tokens(item.prompt))
        return Usage(prompt + min(reading.answer_tokens, estimated_tokens(item.answer)), 0)

    def ask(self, items: Sequence[Item]) -> list[Judgement]:
        """One forward pass for a batch."""
        seen = [item for item in items if self._was_trained_on(item)]
        if seen:
            raise JudgeError(
                f"judge `{self.name}`: was trained on the prompt {seen[0].prompt[:60]!r}, so it may not judge it"
            )
        base, head = self._loaded
        reading = self.artifact.reading
        features = answer_features(
            base, [(item.prompt, item.answer) for item in items], reading, batch_size=self.batch_size
        )
        judgements = []
        for item, probability in zip(items, head.probabilities(features), strict=True):
            encoded, cut = encode_answers(base, item.prompt, [item.answer], reading)
            detail = {"probability": probability, "cut_tokens": cut}
            verdict = float(probability >= self.settings.threshold)
            judgements.append(Judgement("judged", verdict, detail=detail, usage=Usage(encoded.length, 0)))
        return judgements

    def check(self) -> None:
        """It runs here."""

    def stop(self) -> None:
        """A batch has no waits to give up."""

    def _was_trained_on(self, item: Item) -> bool:
        return hash_prompt(item.prompt) in self.trained_on

    @cached_property
    def _loaded(self) -> tuple[BaseModel, Head]:
        """Model and head.

        Raises:
            ModelError: the model cannot be loaded.
            ArtifactError: see `TrainedArtifact.head`.
        """
        from alignx.models.load import load_base
        from alignx.progress import notice

        name = self.settings.model or self.artifact.model
        notice(f"loading {name} for judge {self.name}")
        base = load_base(name)
        return base, self.artifact.head(base)
