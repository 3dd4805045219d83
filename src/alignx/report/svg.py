"""Matplotlib figures as SVG that can stand inside one HTML page: no two share an id, nothing is fetched."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure

# Okabe and Ito's palette, readable with the common kinds of colour blindness; its black is kept for text.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
BLUE, VERMILLION, GREY, INK = "#0072B2", "#D55E00", "#6B6B6B", "#1F2328"

_STYLE = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#E3E6E8",
    "legend.frameon": False,
    # Names come from users: a dollar sign is not mathematics.
    "text.parse_math": False,
    # Text stays text: it can be searched, and any script that the reader's fonts hold is shown.
    "svg.fonttype": "none",
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in one style, whatever matplotlibrc the user has."""
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # Only the width of a label is guessed then; the browser has the glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def inline_svg(figure: Figure, *, prefix: str, label: str) -> str:
    """A figure as an SVG element.

    Args:
        figure: drawn inside `house_style`, where this is called too.
        prefix: letters, digits and dashes, once on the page; goes before every id.
        label: what is to be seen, for readers who do not see it.

    Returns:
        `<svg role="img" ...>`; equal figures and prefixes give equal text.
    """
    buffer = StringIO()
    # Without a salt of its own matplotlib draws one at random; the prefix keeps figures apart.
    with mpl.rc_context({"svg.hashsalt": "alignx"}):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # Its rule would hold for the whole page; the page's own style sheet says the same for figures.
    text = re.sub(r"<style.*?</style>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\sid="([^"]+)"', rf' id="{prefix}-\1"', text)
    text = re.sub(r'\s(?:xlink:)?href="#([^"]+)"', rf' href="#{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
