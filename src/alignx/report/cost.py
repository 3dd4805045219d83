"""What answering costs, as a section and a table for the terminal."""

from collections.abc import Mapping
from typing import Any

from alignx.evaluate.cost_worker import BATCH
from alignx.report.section import Section
from alignx.report.tables import Cell, Column, Row, Table
from alignx.report.wording import ALIGNX, BASE, method_label, number

# Figure -> (head of its column, factor, digits).
_COLUMNS = {
    "first_token_s": ("first token, ms", 1000, 0),
    "token_s": ("a token, ms", 1000, 1),
    "tokens_per_second": ("tokens a second", 1, 1),
    "peak_gb": ("peak memory, GB", 1, 2),
    "accelerator_gb": ("peak on the accelerator, GB", 1, 2),
}


def cost_section(found: Mapping[str, Any] | None) -> Section | None:
    """The section, or none where nothing was measured."""
    return None if found is None else Section("cost", "Cost", cost_sentences(found), [cost_table(found)])


def cost_sentences(found: Mapping[str, Any]) -> list[str]:
    """AlignX against the bare base, by a prompt and by a batch."""
    sentences = []
    for ours, base, words in (
        (ALIGNX, BASE, "Prompt by prompt"),
        (ALIGNX + BATCH, BASE + BATCH, f"In a batch of {found['prompts']} with a mixture of its own for each"),
    ):
        parts = []
        for figure, name in (("token_s", "a token"), ("first_token_s", "the first token, routing among it,")):
            ratio = _ratio(found, ours, base, figure)
            if ratio is not None:
                parts.append(f"{name} takes {number(ratio, 2)} times what it takes the base")
        if parts:
            sentences.append(f"{words}, {' and '.join(parts)}.")
    return sentences


def cost_table(found: Mapping[str, Any]) -> Table:
    """Every method's figures: medians, with the smallest and the largest below."""
    shown = {name: head for name, head in _COLUMNS.items() if any(row[name] for row in found["methods"].values())}
    rows = [
        Row(
            method,
            _label(method),
            (
                Cell(str(row["tokens"])),
                *(_cell(row[name], factor, digits) for name, (_, factor, digits) in shown.items()),
            ),
            method.startswith(ALIGNX),
        )
        for method, row in found["methods"].items()
    ]
    environment = found["environment"]
    machine = environment.get("accelerator") or f"{environment['processor']}, {found['threads']} threads"
    return Table(
        f"Cost of answering {found['prompts']} test prompts with up to {found['new_tokens']} tokens each",
        "method",
        (Column("tokens"), *(Column(head) for head, _, _ in shown.values())),
        tuple(rows),
        f"Medians of {found['repeats']} turns, each in a process of its own, methods taking turns; below: smallest to "
        f"largest. First token: one whole call for one token. A token: what each further one adds. Peak memory is the "
        f"process's own, loading among it. Experts and joint LoRA run by PEFT, unmerged. Measured on {machine}, "
        f"torch {environment['torch']}, transformers {environment['transformers']}.",
    )


def _label(method: str) -> str:
    if method.endswith(BATCH):
        return f"{method_label(method.removesuffix(BATCH))}, one batch"
    return f"{method_label(method)} by PEFT" if method not in {BASE, ALIGNX} else method_label(method)


def _cell(spread: Mapping[str, float] | None, factor: float, digits: int) -> Cell:
    if spread is None:
        return Cell("none")
    median, low, high = (number(factor * spread[name], digits) for name in ("median", "min", "max"))
    return Cell(median, f"{low} to {high}")


def _ratio(found: Mapping[str, Any], ours: str, base: str, figure: str) -> float | None:
    one, other = (found["methods"].get(name, {}).get(figure) for name in (ours, base))
    return one["median"] / other["median"] if one and other and other["median"] > 0 else None
