"""The values of a row's cells, checked: text, labels and conversations; a wrong one is named with its row."""

from typing import Any

from alignx.data.files import Row
from alignx.errors import DataError

_LABELS = {"true": True, "false": False, "1": True, "0": False}
# Roles as chat data and ShareGPT data spell them.
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}


def text(row: Row, column: str, number: int, source: str) -> str:
    """A cell's text, stripped; empty when there is none.

    Raises:
        DataError: another type, or text that cannot be written again.
    """
    return _checked_text(row[column], f"{source}: row {number}: `{column}`")


def label(row: Row, column: str, number: int, source: str) -> bool:
    """Whether an answer is labelled good.

    BeaverTails' own label is true or false; a user's may be 1 or 0 as well.

    Raises:
        DataError: another value.
    """
    value = row[column]
    named = _LABELS.get(str(value).strip().lower())
    if named is None or (column == "is_safe" and not isinstance(value, bool | str)):
        raise DataError(f"{source}: row {number}: `{column}` is {value!r}, expected true or false; mend that row")
    return named


def conversation(row: Row, column: str, number: int, source: str) -> tuple[str, str, bool]:
    """First user turn and the assistant turn after it; a system turn is left out, the axis's instruction replaces it.

    Args:
        row: the row.
        column: its column with a list of turns (`role` and `content`, or `from` and `value`), or with a prompt's text.
        number: the row's number.
        source: the row's origin.

    Returns:
        Prompt, answer (empty when there is none), and whether later turns are left unused.

    Raises:
        DataError: a turn without role or text, or of an unknown role.
    """
    if not isinstance(row[column], list):
        return text(row, column, number, source), "", False
    turns = [turn for turn in _turns(row[column], f"{source}: row {number}: `{column}`") if turn[0] != "system"]
    if not turns or turns[0][0] != "user":
        return "", "", False
    answer = turns[1][1] if len(turns) > 1 and turns[1][0] == "assistant" else ""
    return turns[0][1], answer, len(turns) > 2


def only_answer(row: Row, column: str, number: int, source: str) -> tuple[str, bool]:
    """An answer that is given as text, or as the exchange that ends with it.

    Returns:
        The answer (empty when there is none), and whether the conversation has more than one exchange: then the
        answer is to more than the prompt.

    Raises:
        DataError: a turn without role or text, or of an unknown role.
    """
    if not isinstance(row[column], list):
        return text(row, column, number, source), False
    turns = [turn for turn in _turns(row[column], f"{source}: row {number}: `{column}`") if turn[0] != "system"]
    return turns[-1][1] if turns and turns[-1][0] == "assistant" else "", len(turns) > 2


def _turns(value: list[Any], where: str) -> list[tuple[str, str]]:
    found = []
    for place, turn in enumerate(value, start=1):
        if not isinstance(turn, dict):
            raise DataError(f"{where}: turn {place} is {type(turn).__name__}, expected `role` and `content`; mend it")
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if role not in _ROLES:
            raise DataError(f"{where}: turn {place} has role {role!r}; known roles: {', '.join(_ROLES)}; mend it")
        found.append((_ROLES[role], _checked_text(content, f"{where}: turn {place}")))
    return found


def _checked_text(value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where} is {type(value).__name__}, expected text; mend that row")
    if not value.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise DataError(f"{where} holds half of a surrogate pair; mend that row")
    return value.strip()
