"""What Stage 1 recorded about its adapters, and which joint LoRA was chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignx.report.smoothing import moving_average, smoothing_window
from alignx.report.tables import Cell, Column, Row, Table
from alignx.report.wording import JOINT, JOINT_MR, number
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_json

SHARED = "shared"


@dataclass(frozen=True)
class TrainingPart:
    """Tables and curves of the training; `losses` is adapter -> nats per target token by step."""

    table: Table | None
    choice: Table | None
    losses: Mapping[str, Sequence[float]]


def gather_training(run: RunDirectory, axes: Sequence[str]) -> TrainingPart:
    """Read every adapter's `training.json` and the joint LoRA's `choice.json`; either may be absent.

    Raises:
        ArtifactError: a file is damaged.
    """
    # adapter_folder is the only place that knows where adapters lie.
    folder = run.adapter_folder(JOINT).parent.parent
    found = {path.parent.name: read_json(path) for path in sorted(folder.glob("*/training.json"))}
    order = [SHARED, *axes]
    names = sorted(found, key=lambda name: order.index(name) if name in order else len(order))
    records = _without_copy({name: found[name] for name in names})
    choice_path = run.adapter_folder(JOINT).parent / "choice.json"
    return TrainingPart(
        table=_table(records) if records else None,
        choice=_choice_table(read_json(choice_path)) if choice_path.is_file() else None,
        losses={name: record["losses"] for name, record in records.items()},
    )


def _without_copy(records: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A joint LoRA is a copy of the candidate that was chosen: shown once, under both names."""
    shown = dict(records)
    for kept_as in (JOINT, JOINT_MR):
        twins = [name for name, record in shown.items() if name != kept_as and record == shown.get(kept_as)]
        if twins:
            shown = {
                (f"{name} (= {kept_as})" if name == twins[0] else name): record
                for name, record in shown.items()
                if name != kept_as
            }
    return shown


def _table(records: Mapping[str, dict[str, Any]]) -> Table:
    rows = []
    for name, record in records.items():
        smooth = moving_average(record["losses"], smoothing_window(len(record["losses"])))
        cells = (
            record["examples"],
            record["epochs"],
            f"{record['learning_rate']:g}",
            f"{record['injection_rate']:g}",
            record.get("on_top_of") or "base",
            record["steps"],
            record["tokens"],
            number(record["seconds"], 0),
            f"{number(smooth[0], 2)} to {number(smooth[-1], 2)}" if smooth else "none",
        )
        rows.append(Row(name, name, tuple(Cell(str(cell)) for cell in cells)))
    titles = ("examples", "passes", "rate", "injection", "on top of", "steps", "tokens", "seconds", "smoothed loss")
    return Table(
        "Training of the adapters",
        "adapter",
        tuple(Column(title, is_text=title == "on top of") for title in titles),
        tuple(rows),
        "Injection: share of examples that carried the axis's instruction. Smoothed loss: first and last point of a "
        "moving average, in nats per target token of the training batches.",
    )


def _choice_table(choice: Mapping[str, Any]) -> Table:
    chosen = choice["chosen"]
    rows = []
    for tried in choice["tried"]:
        is_chosen = all(tried[key] == chosen[key] for key in ("learning_rate", "epochs"))
        label = f"rate {tried['learning_rate']:g}, passes {tried['epochs']}"
        rows.append(Row(label, label, (Cell(number(tried["mix_loss"])), Cell("chosen" if is_chosen else ""))))
    return Table(
        "How the joint LoRA was chosen",
        "candidate",
        (Column("loss on the mix split"), Column("choice", is_text=True)),
        tuple(rows),
        "Nats per target token, every axis weighing the same; the mix split holds no test prompt.",
    )
