"""How figures are put into words: names of methods, numbers with their unit, and what an interval allows to say."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from alignx.evaluate.measures import AVERAGE

Verdict = Literal["better", "worse", "not distinguishable", "unknown"]

ALIGNX, BASE, JOINT, UNIFORM = "alignx", "base", "joint", "uniform"
JOINT_MR = "joint-mr"
ORACLE_PREFIX = "oracle-"
EXPERT_PREFIX = "expert-"
# Groups of the tables, in their order; a method that fits none comes last.
_GROUPS = (
    BASE,
    EXPERT_PREFIX,
    JOINT,
    JOINT_MR,
    UNIFORM,
    "task-arithmetic",
    "ties",
    "dare",
    "negate",
    "x-lora",
    "arrow",
    "dense-mixture",
    ALIGNX,
    "ablation-",
    "joint-",
    ORACLE_PREFIX,
)
_LABELS = {
    BASE: "base model",
    JOINT: "joint LoRA",
    JOINT_MR: "joint LoRA, m times the rank",
    UNIFORM: "uniform merge",
    ALIGNX: "AlignX",
}
_OTHER_LABELS = {
    "task-arithmetic": "task arithmetic",
    "ties": "TIES",
    "dare": "DARE",
    "negate": "negated experts",
    "x-lora": "PEFT X-LoRA",
    "arrow": "PEFT Arrow",
    "dense-mixture": "dense feed-forward mixture",
}


def axes_of(metrics: Mapping[str, Any]) -> list[str]:
    """The axes of an evaluation, in the config's order."""
    return [axis for axis in metrics["n"] if axis != AVERAGE]


def ordered_methods(names: Iterable[str], axes: Sequence[str]) -> list[str]:
    """Methods in the order of the tables: base, experts, joints, merges, AlignX, ablations, other joints, bounds."""
    given = list(names)

    def key(name: str) -> tuple[int, int, int]:
        group = next((number for number, start in enumerate(_GROUPS) if _belongs(name, start)), len(_GROUPS))
        axis = name.removeprefix(EXPERT_PREFIX)
        return group, axes.index(axis) if axis in axes else len(axes), given.index(name)

    return sorted(given, key=key)


def is_main(name: str) -> bool:
    """Whether a method belongs to the short table: no ablation, bound, merge or other variant of the joint LoRA."""
    return name in _LABELS or name.startswith(EXPERT_PREFIX)


def method_label(name: str) -> str:
    """A method's name as readers see it.

    Example:
        >>> method_label("expert-honest"), method_label("ablation-plain-router")
        ('expert: honest', 'ablation: plain router')
    """
    if name in _LABELS:
        return _LABELS[name]
    for prefix in (EXPERT_PREFIX, "ablation-", ORACLE_PREFIX):
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            # An axis keeps its own spelling; the rest of a method's name is ours.
            return f"{prefix[:-1]}: {rest if prefix == EXPERT_PREFIX else rest.replace('-', ' ')}"
    if name in _OTHER_LABELS:
        return _OTHER_LABELS[name]
    if name.startswith("joint-"):
        return f"joint LoRA: {name.removeprefix('joint-')}"
    return name


def verdict_on(value: float, low: float, high: float) -> Verdict:
    """What the interval of a difference in loss allows to say about AlignX; negative is better.

    An interval without width comes from a single cluster and means unknown, unless nothing differs at all.
    """
    if low <= 0 <= high:
        return "not distinguishable"
    if low == high:
        return "unknown"
    return "better" if value < 0 else "worse"


def number(value: float, digits: int = 3) -> str:
    """A number to a fixed number of digits."""
    return f"{value:.{digits}f}"


def number_range(low: float, high: float, *, digits: int = 3) -> str:
    """Both ends of an interval."""
    return f"{number(low, digits)} to {number(high, digits)}"


def per_cent(share: float, digits: int = 1) -> str:
    """A share in per cent.

    Example:
        >>> per_cent(0.883)
        '88.3%'
    """
    return f"{100 * share:.{digits}f}%"


def signed_per_cent(share: float, digits: int = 2) -> str:
    """A relative difference in per cent with its sign; a typographic minus, and no sign on zero.

    Example:
        >>> signed_per_cent(0.0123), signed_per_cent(-0.00001)
        ('+1.23%', '0.00%')
    """
    text = f"{100 * share:+.{digits}f}%"
    if float(text[:-1]) == 0:
        return f"{0:.{digits}f}%"
    return text.replace("-", "\N{MINUS SIGN}")


def signed_range(interval: Sequence[float]) -> str:
    """Both ends of a relative difference's interval, in per cent."""
    low, high = interval
    return f"{signed_per_cent(low)} to {signed_per_cent(high)}"


def listed(words: Sequence[str]) -> str:
    """Words as English lists them.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def shortened(name: str, letters: int) -> str:
    """A name that fits a picture: a long one loses its middle; tables have it whole.

    Example:
        >>> shortened("a-very-long-name", 9), shortened("honest", 9)
        ('a-ve…name', 'honest')
    """
    if len(name) <= letters:
        return name
    end = (letters - 1) // 2
    return f"{name[: letters - 1 - end]}\N{HORIZONTAL ELLIPSIS}{name[len(name) - end :]}"


def counts(metrics: Mapping[str, Any]) -> str:
    """How many prompts stand behind an evaluation, by axis."""
    return ", ".join(f"{axis} {metrics['n'][axis]}" for axis in axes_of(metrics))


def _belongs(name: str, start: str) -> bool:
    return name.startswith(start) if start.endswith("-") else name == start
