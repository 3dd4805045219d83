"""Putting a prompt and an answer into a judge's template."""

import re

from alignx.evaluate.judges.interface import Item


def fill(template: str, item: Item) -> str:
    """The template with `{prompt}` and `{answer}` replaced in one pass, so that braces in the texts stay texts.

    Example:
        >>> fill("Q: {prompt} A: {answer}", Item("truth", "what is {answer}?", "42"))
        'Q: what is {answer}? A: 42'
    """
    texts = {"prompt": item.prompt, "answer": item.answer}
    return re.sub(r"\{(prompt|answer)\}", lambda found: texts[found.group(1)], template)
