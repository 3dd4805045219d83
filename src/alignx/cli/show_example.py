"""A training example on the output stream: supervised tokens in reverse video on a terminal, in brackets elsewhere."""

from rich.console import Console
from rich.text import Text

from alignx.stage1.shown_example import Piece, ShownExample


def show_training_example(example: ShownExample) -> None:
    """Print the example, and how to read it."""
    console = Console(highlight=False)
    marks_by_style = console.is_terminal and not console.no_color
    shown = Text()
    for piece in example.pieces:
        shown.append(_text(piece, marks_by_style), style="reverse" if piece.supervised and marks_by_style else "")
    console.print(
        f"axis {example.axis}, {example.style} template, the first of {example.n_examples} training examples as drawn:",
        markup=False,
        soft_wrap=True,
    )
    console.print()
    console.print(shown, soft_wrap=True)
    console.print()
    for line in _explanation(example, marks_by_style):
        console.print(line, markup=False, soft_wrap=True)


def _text(piece: Piece, marks_by_style: bool) -> str:
    visible = "".join(letter if letter.isprintable() or letter == "\n" else _escaped(letter) for letter in piece.text)
    visible = f"«{visible}»" if piece.control else visible
    return f"[{visible}]" if piece.supervised and not marks_by_style else visible


def _escaped(letter: str) -> str:
    """A control character as a name: text from data must not steer the terminal."""
    return letter.encode("unicode_escape").decode("ascii")


def _explanation(example: ShownExample, marks_by_style: bool) -> list[str]:
    mark = "reverse video" if marks_by_style else "[...]"
    if example.ends:
        end = f"the end token «{example.end}» last, so the expert learns to stop"
    else:
        end = f"cut at max_tokens {example.max_tokens}, so without the end token «{example.end}»"
    rate = example.injection_rate
    return [
        f"{mark}: a token the loss is taken on; «...»: a control token (anything else that looks like one is text).",
        f"prompt: {example.n_prompt} tokens, not trained on; target: {example.n_target} tokens, trained on, {end}.",
        f"injection_rate {rate:g}: {100 * rate:g}% of the examples, drawn by seed, carry the axis instruction in the "
        f"prompt; this one {'does' if example.injected else 'does not'}.",
        "Nothing was trained or written; leave out --show-example to train.",
    ]
