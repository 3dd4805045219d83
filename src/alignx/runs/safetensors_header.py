"""What the safetensors reader lets pass: a name that a header gives twice, of which it takes the last."""

import json
from pathlib import Path
from typing import Any


def check_names_once(path: Path) -> None:
    """Look for a repeated name in the header of a file that the reader has accepted.

    Raises:
        ValueError: a name is given twice.
    """
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    json.loads(header, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        repeated = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        raise ValueError(f"its header gives `{repeated:.80}` twice")
    return document
