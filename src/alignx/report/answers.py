"""Generated answers, to be shown side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignx.errors import ArtifactError
from alignx.report.wording import number, per_cent


@dataclass(frozen=True)
class ShownAnswer:
    """One answer of the model.

    Attributes:
        setting: name of the dial's setting.
        text: what the model said; any text at all.
        weights: axis -> share of its expert, in [0, 1]; empty where the experts are off.
        facts: the rest in words: weights, scale, read-outs, how it ended.
    """

    setting: str
    text: str
    weights: Mapping[str, float]
    facts: Sequence[str]


@dataclass(frozen=True)
class AnswerGroup:
    """Answers to one prompt."""

    prompt: str
    answers: Sequence[ShownAnswer]


def group_answers(rows: Sequence[Mapping[str, Any]], path: Path) -> list[AnswerGroup]:
    """Answers by prompt, both in the order of the file.

    Args:
        rows: of `answers.jsonl`.
        path: the file, for messages.

    Raises:
        ArtifactError: a row lacks something.
    """
    by_prompt: dict[str, list[ShownAnswer]] = {}
    for at, row in enumerate(rows, start=1):
        try:
            by_prompt.setdefault(str(row["prompt"]), []).append(_shown(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"{path}: row {at} is damaged ({error}); remove the file and run the step that makes it again"
            ) from error
    return [AnswerGroup(prompt, answers) for prompt, answers in by_prompt.items()]


def _shown(row: Mapping[str, Any]) -> ShownAnswer:
    weights = {str(axis): min(1.0, max(0.0, float(share))) for axis, share in row["pi"].items()}
    scale = float(row["scale"])
    facts = [f"mixture: {_shares(row['pi'])}", f"factor on the experts: {number(scale, 2)}"]
    if scale == 0:
        facts[1] += " (experts off: the base model)"
        weights = {}
    facts += [f"axis_probs: {_shares(row['axis_probs'])}", f"best_probs: {_shares(row['best_probs'])}"]
    facts.append(f"known: {number(float(row['known']), 2)}")
    end = "ended by itself" if row["finished"] else "cut off"
    facts.append(f"{int(row['n_tokens'])} tokens, {end}")
    return ShownAnswer(str(row["setting"]), str(row["answer"]), weights, facts)


def _shares(shares: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis} {per_cent(float(share), 0)}" for axis, share in shares.items())
