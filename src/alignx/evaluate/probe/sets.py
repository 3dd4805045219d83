"""The prompts that probe a run, written for this project and shipped in the package."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from alignx.data.files import read_rows
from alignx.data.sources import SAMPLE_FOLDER
from alignx.errors import ConfigError

FOREIGN, DISGUISE, SEVERAL_AXES = "foreign", "disguise", "several-axes"
PROBE_FILES: dict[str, Path] = {
    FOREIGN: SAMPLE_FOLDER / "foreign_test.jsonl",
    DISGUISE: SAMPLE_FOLDER / "disguise.jsonl",
    SEVERAL_AXES: SAMPLE_FOLDER / "several_axes.jsonl",
}
# Small everyday tasks such as an instruction set holds itself: shown beside the foreign kinds, not averaged with them.
OWN_KIND = "alpaca-like"
# Harmful requests as they are, which the disguised ones are compared with.
UNDISGUISED = "plain"

Item = TypeVar("Item")


@dataclass(frozen=True)
class ProbePrompt:
    """One prompt of a probe.

    Attributes:
        probe: `foreign`, `disguise` or `several-axes`.
        kind: what sort of prompt it is within the probe, such as `maths` or `role-play`; its topic in `several-axes`.
        text: what is asked.
        answer: a reference answer or continuation (`foreign` only), else empty.
        needs: names of the axes it needs (`several-axes` only), else empty.
        language: ISO 639-1 code where the prompt is not in English and not all of its kind share a language.
    """

    probe: str
    kind: str
    text: str
    answer: str = ""
    needs: tuple[str, ...] = ()
    language: str = ""


def parse_kinds(text: str | None) -> list[str]:
    """Read `foreign,disguise`; all probes when nothing is given.

    Raises:
        ConfigError: an unknown probe, or none at all.
    """
    if text is None:
        return list(PROBE_FILES)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--kinds {text!r}: names no probe; give {', '.join(PROBE_FILES)}, with commas between")
    for name in names:
        if name not in PROBE_FILES:
            near = get_close_matches(name, PROBE_FILES, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"give {', '.join(PROBE_FILES)}, with commas between"
            raise ConfigError(f"--kinds {text}: unknown kind `{name}`; {hint}")
    return [probe for probe in PROBE_FILES if probe in names]


def probe_prompts(probe: str, *, limit: int | None = None) -> list[ProbePrompt]:
    """The prompts of one probe, in their file's order.

    Args:
        probe: a key of `PROBE_FILES`.
        limit: most prompts of each kind; none: all.
    """
    prompts = [_prompt(probe, row) for row in read_rows(PROBE_FILES[probe])]
    return first_of_each([prompt.kind for prompt in prompts], prompts, limit)


def first_of_each(groups: Sequence[str], items: Sequence[Item], limit: int | None) -> list[Item]:
    """The first `limit` items of every group, in their order; none: all."""
    seen: dict[str, int] = {}
    kept = []
    for group, item in zip(groups, items, strict=True):
        seen[group] = seen.get(group, 0) + 1
        if limit is None or seen[group] <= limit:
            kept.append(item)
    return kept


def _prompt(probe: str, row: dict[str, Any]) -> ProbePrompt:
    prompt = ProbePrompt(probe, str(row.get("kind") or row.get("topic")), str(row["prompt"]))
    return replace(
        prompt,
        answer=str(row.get("answer", "")),
        needs=tuple(map(str, row.get("axes", ()))),
        language=str(row.get("language", "")),
    )
