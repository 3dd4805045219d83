"""A section of a page: a title, sentences, then tables and pictures in their order.

Parts of a report that need nothing of their own are sections: the page and the markdown know how to show any of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from alignx.report.tables import Table


@dataclass(frozen=True)
class Picture:
    """One or several SVGs that stand together.

    Attributes:
        svg: made by `inline_svg`; the only text of a page that is not escaped.
        caption: what a reader must know to read it.
        kind: `one` large panel, `many` side by side, or `small` ones.
    """

    svg: str
    caption: str
    kind: Literal["one", "many", "small"] = "one"


@dataclass(frozen=True)
class SideBySide:
    """Texts shown beside each other, always as text.

    Attributes:
        title: what they answer.
        about: facts, one line each.
        texts: (label, text) of each column.
    """

    title: str
    about: Sequence[str]
    texts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """Attributes: `name` (letters and dashes, once on a page), `title`, `sentences`, and the `blocks` below them."""

    name: str
    title: str
    sentences: Sequence[str] = ()
    blocks: Sequence[Table | Picture | SideBySide] = field(default_factory=tuple)
