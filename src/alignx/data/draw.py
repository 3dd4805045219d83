"""Rows drawn by seed from a set of any size, without holding more than are kept."""

import random
from collections.abc import Iterable

from alignx.data.files import Row


def draw_rows(rows: Iterable[Row], limit: int, *, seed: int) -> tuple[list[tuple[int, Row]], int]:
    """A uniform draw of at most `limit` rows in one pass; memory holds the rows that are kept and one more.

    Args:
        rows: all rows.
        limit: rows to keep.
        seed: of the draw; the same rows come out whatever reads them.

    Returns:
        The rows drawn, in their order and with their numbers from 1, and how many there were in all.

    Source: reservoir sampling, algorithm R (Vitter 1985).
    """
    draw = random.Random(seed)
    kept: list[tuple[int, Row]] = []
    number = 0
    for number, row in enumerate(rows, start=1):
        if number <= limit:
            kept.append((number, row))
        else:
            place = draw.randrange(number)
            if place < limit:
                kept[place] = (number, row)
    return sorted(kept, key=lambda numbered: numbered[0]), number
