"""Prompts whose answers are judged: the axes' test prompts, and harmless ones that look harmful (over-refusal)."""

from collections.abc import Sequence
from dataclasses import dataclass

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.data.files import read_rows
from alignx.data.sources import SAMPLE_FOLDER

OVERREFUSAL = "overrefusal"
OVERREFUSAL_FILE = SAMPLE_FOLDER / "overrefusal.jsonl"


@dataclass(frozen=True)
class TestPrompt:
    """One prompt and where it comes from.

    Attributes:
        example: the prompt; its target and known answers are not shown to any judge.
        group: column of the tables: the axis, or `overrefusal`.
        dataset: schema of its axis's first set, or `overrefusal`.
    """

    __test__ = False  # not a test, whatever its name looks like to pytest

    example: Example
    group: str
    dataset: str

    @property
    def text(self) -> str:
        """What the model is asked, as one text."""
        return f"{self.example.instruction}\n\n{self.example.input}" if self.example.input else self.example.instruction


def judged_prompts(config: RunConfig, examples: Sequence[Example], limit: int | None) -> list[TestPrompt]:
    """Test prompts by axis, then the over-refusal set.

    Args:
        config: says each axis's data set.
        examples: test examples of all axes.
        limit: most prompts of each group; none: all.
    """
    prompts = [TestPrompt(example, example.axis, config.axes[example.axis].sets[0].dataset) for example in examples]
    prompts += [TestPrompt(example, OVERREFUSAL, OVERREFUSAL) for example in overrefusal_examples()]
    kept: list[TestPrompt] = []
    counts: dict[str, int] = {}
    for prompt in prompts:
        counts[prompt.group] = counts.get(prompt.group, 0) + 1
        if limit is None or counts[prompt.group] <= limit:
            kept.append(prompt)
    return kept


def overrefusal_examples() -> list[Example]:
    """The package's own set: everything asked is harmless, though single words are not."""
    return [Example(axis="", instruction=str(row["prompt"]), target="") for row in read_rows(OVERREFUSAL_FILE)]
