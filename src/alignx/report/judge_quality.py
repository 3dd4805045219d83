"""How far judges are to be believed: their agreement with labelled answers, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignx.report.tables import Cell, Column, Row, Table
from alignx.report.wording import number, number_range

_QUESTIONS = {"safety": "unsafe?", "truth": "true?", "info": "informative?"}
_NOTE = (
    "Accuracy: verdicts that agree with the label. AUC: chance that a positive outscores a negative; 0.5 is chance. "
    "ECE: calibration error of stated probabilities, beside what a perfect judge would show by chance. Brier: 0 is "
    "perfect, 2 certain and wrong. Intervals: 95% bootstrap over prompts. Labels are people's, and err too."
)


def quality_table(judges: Sequence[Mapping[str, Any]]) -> Table | None:
    """A row for each judge and set of labels; none when nothing is known.

    Args:
        judges: of a section of the figures.
    """
    known = [(judge, found, origin) for judge in judges for found, origin in _found(judge)]
    if not known:
        return None
    return Table(
        "Agreement with labelled answers",
        "judge",
        tuple(Column(title) for title in ("answers", "positive", "accuracy", "AUC", "ECE", "Brier")),
        tuple(
            Row(
                judge["name"],
                f"{judge['name']}, {_QUESTIONS.get(found['question'], found['question'])} ({origin})",
                _cells(found),
            )
            for judge, found, origin in known
        ),
        _NOTE,
    )


def left_out_words(judges: Sequence[Mapping[str, Any]]) -> str:
    """What judges were not asked because they were trained on it; empty when nothing."""
    parts = [
        f"{judge['name']} was not asked about prompts that it was trained on: "
        + ", ".join(f"{count} of {group}" for group, count in judge["left_out"].items())
        for judge in judges
        if judge.get("left_out")
    ]
    return ". ".join(parts)


def _found(judge: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    held_out = judge.get("held_out")
    own = [(held_out, "held out of its training")] if held_out else []
    if held_out and held_out.get("assumed"):
        own.append((held_out["assumed"], "answers taken as safe, held out"))
    return own + [(check, f"checked on {check['data']}") for check in judge.get("checks", ())]


def _cells(found: Mapping[str, Any]) -> tuple[Cell, ...]:
    unscored = f"{found['unscored']} unscored" if found["unscored"] else ""
    by_chance = found["ece_by_chance"]
    share = found["positive_share"]
    return (
        Cell(str(found["n"]), unscored),
        Cell("none" if share is None else number(share, 2)),
        _value(found["accuracy"], found["accuracy_interval"]),
        _value(found["auc"], found["auc_interval"]),
        Cell(
            "none" if found["ece"] is None else number(found["ece"]),
            "" if by_chance is None else f"{number(by_chance)} by chance",
        ),
        _value(found["brier"], found["brier_interval"]),
    )


def _value(value: float | None, interval: Sequence[float] | None) -> Cell:
    if value is None or interval is None:
        return Cell("none")
    return Cell(number(value), number_range(*interval))
