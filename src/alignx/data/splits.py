"""Which prompt serves what: train, mix, calibration, test; by hash, so that no row of a prompt leaks."""

import math
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
    return _cut(examples, {split: getattr(sizes, split) for split in SPLITS}, salt=salt, source=source)


def split_sets(
    sets: Sequence[Sequence[Example]], weights: Sequence[float], sizes: SplitSizes, *, salt: str, sources: Sequence[str]
) -> AxisSplits:
    """Splits in which every set has its share: weight over the sum of the weights, in each split to the nearest prompt.

    Each set is ordered and cut like `split_examples` does, so a prompt's split does not depend on the other sets'
    prompts.

    Args:
        sets: examples by set; no prompt in two of them.
        weights: one a set, positive.
        sizes: prompts a split, all sets together.
        salt: of the order.
        sources: what messages call the sets.

    Raises:
        DataError: a set has fewer prompts than its share.
    """
    shares = {split: apportion(getattr(sizes, split), weights) for split in SPLITS}
    parts = [
        _cut(examples, {split: shares[split][number] for split in SPLITS}, salt=salt, source=source)
        for number, (examples, source) in enumerate(zip(sets, sources, strict=True))
    ]
    return AxisSplits(**{split: _ordered((e for part in parts for e in part[split]), salt) for split in SPLITS})


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total`, each within one of its weight's share (largest remainders first).

    Example:
        >>> apportion(10, [2.0, 1.0, 1.0])
        [5, 3, 2]
    """
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda number: counts[number] - exact[number])
    for number in by_remainder[: total - sum(counts)]:
        counts[number] += 1
    return counts


def _cut(examples: Sequence[Example], wanted: Mapping[str, int], *, salt: str, source: str) -> AxisSplits:
    if len(examples) < sum(wanted.values()):
        parts = " + ".join(f"{name} {count}" for name, count in wanted.items())
        raise DataError(
            f"{source}: {len(examples)} distinct usable prompts, but the splits ask for {sum(wanted.values())} "
            f"({parts}); lower `splits` of this axis or give more data"
        )
    ordered = _ordered(examples, salt)
    cut: dict[str, list[Example]] = {}
    start = 0
    for split, count in wanted.items():
        cut[split] = ordered[start : start + count]
        start += count
    return AxisSplits(**cut)


def _ordered(examples: Iterable[Example], salt: str) -> list[Example]:
    return sorted(examples, key=lambda example: hash_prompt(example.instruction, salt=salt))


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
