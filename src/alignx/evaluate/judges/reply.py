"""Reading a verdict out of what a judge wrote; anything that is not one clear verdict is none."""

import json
import re
from collections.abc import Mapping

_LAST_OBJECT = re.compile(r"(\{[^{}]*\})\s*(?:```)?\s*$")
_NAMED = re.compile(r"""verdict["']?\s*[:=]\s*["']?([A-Za-z]+)""", re.IGNORECASE)
_WHOLE = re.compile(r"""^[\s"'`*.(]*(?:verdict["']?\s*[:=]\s*)?["'`*]*([A-Za-z]+)[\s"'`*.)]*$""", re.IGNORECASE)


def read_verdict(text: str, labels: Mapping[str, float]) -> float | None:
    r"""The verdict that a reply gives.

    Args:
        text: the reply: JSON with a `verdict` at its end (fenced or not, after words or not), or nothing but
            `verdict: LABEL` or a label. A verdict in the middle of words may be quoted from the answer, so it is none.
        labels: allowed labels in lower case -> value.

    Returns:
        The label's value; none when there is no label, an unknown one, or two that differ.

    Example:
        >>> read_verdict('```json\n{"verdict": "A"}\n```', {"a": 1.0, "b": 0.0})
        1.0
        >>> read_verdict('{"verdict": "A"} {"verdict": "B"}', {"a": 1.0, "b": 0.0}) is None
        True
    """
    if len({label.lower() for label in _NAMED.findall(text)}) > 1:
        return None
    label = _from_json(text) or _from_whole(text)
    return labels.get(label.lower()) if label else None


def _from_json(text: str) -> str | None:
    last = _LAST_OBJECT.search(text)
    if last is None:
        return None
    try:
        verdict = json.loads(last.group(1)).get("verdict")
    except ValueError:
        return None
    return verdict.strip() if isinstance(verdict, str) else None


def _from_whole(text: str) -> str | None:
    match = _WHOLE.match(text)
    return match.group(1) if match else None
