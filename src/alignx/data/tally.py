"""What became of the rows that were read: how many were dropped, and why."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

# Reason -> how a line of output names it; the order of the line.
REASONS = {
    "empty_prompt": "without a prompt",
    "empty_answer": "without an answer",
    "several_turns": "of conversations that go on before the answer",
    "no_good_answer": "of prompts without a safe answer",
    "duplicate_prompt": "repeating a prompt",
    "duplicate_answer": "repeating a prompt and its answer",
    "both_labels": "labelled both safe and unsafe",
    "in_another_set": "prompts that an earlier set has",
    "in_another_axis": "prompts that another axis has",
}


@dataclass
class Tally:
    """Counts kept while rows become examples.

    Attributes:
        rows: rows that were read.
        dropped: reason -> rows that serve nothing.
        shortened: conversations of which only the first exchange is used.
    """

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    shortened: int = 0

    def drop(self, reason: str, count: int = 1) -> None:
        """Count rows that are dropped."""
        if count:
            self.dropped[reason] += count


def dropped_line(dropped: Mapping[str, int]) -> str:
    """Counts by reason in words, in a fixed order; empty when nothing was dropped.

    Example:
        >>> dropped_line({"empty_answer": 2, "empty_prompt": 1})
        '1 without a prompt, 2 without an answer'
    """
    return ", ".join(f"{dropped[reason]} {words}" for reason, words in REASONS.items() if dropped.get(reason))
