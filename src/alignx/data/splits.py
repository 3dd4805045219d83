"""Which prompt serves what: train, mix, calibration, test; by hash, so that no row of a prompt leaks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alignx.config import SplitSizes
from alignx.data.example import Example, hash_prompt
from alignx.errors import DataError

SPLITS = ("train", "mix", "calibration", "test")


@dataclass(frozen=True)
class AxisSplits:
    """Examples of one axis, by what they serve."""

    train: list[Example]
    mix: list[Example]
    calibration: list[Example]
    test: list[Example]

    def __getitem__(self, split: str) -> list[Example]:
        """Examples of a split by its name."""
        return {"train": self.train, "mix": self.mix, "calibration": self.calibration, "test": self.test}[split]


def split_examples(examples: Sequence[Example], sizes: SplitSizes, *, salt: str, source: str) -> AxisSplits:
    """Order prompts by sha256(salt + prompt) and cut by count.

    Raises:
        DataError: fewer prompts than the splits ask for.
    """
    wanted = {split: getattr(sizes, split) for split in SPLITS}
    if len(examples) < sum(wanted.values()):
        parts = " + ".join(f"{name} {count}" for name, count in wanted.items())
        raise DataError(
            f"{source}: {len(examples)} distinct usable prompts, but the splits ask for {sum(wanted.values())} "
            f"({parts}); lower `splits` of this axis or give more data"
        )
    ordered = sorted(examples, key=lambda example: hash_prompt(example.instruction, salt=salt))
    cut: dict[str, list[Example]] = {}
    start = 0
    for split, count in wanted.items():
        cut[split] = ordered[start : start + count]
        start += count
    return AxisSplits(**cut)


def leave_out_trained(
    examples: Iterable[Example], splits: Mapping[str, Mapping[str, Sequence[str]]]
) -> tuple[list[Example], int]:
    """Examples whose prompt no training split of a run holds, and how many were left out.

    Args:
        examples: candidates for test data.
        splits: prompt hashes by axis and split, as `splits.json` keeps them.
    """
    trained = {
        prompt_hash
        for by_split in splits.values()
        for split in SPLITS
        if split != "test"
        for prompt_hash in by_split.get(split, ())
    }
    candidates = list(examples)
    kept = [example for example in candidates if example.prompt_hash not in trained]
    return kept, len(candidates) - len(kept)
