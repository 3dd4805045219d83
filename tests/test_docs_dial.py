"""`docs/dial.md` says what the code does."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from alignx.config import RunConfig
from alignx.stage2.dial import mixture_weights
from alignx.stage2.presets import BUILT_IN, LEAN_WEIGHT, preset_dial

PAGE = (Path(__file__).parents[1] / "docs" / "dial.md").read_text(encoding="utf-8")
AXES = ["helpful", "harmless", "honest"]


def table(head: str) -> list[list[str]]:
    """Cells of the table whose first head this is, without its two head lines."""
    lines = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_presets_are_those_of_the_code() -> None:
    def words(values: dict[str, float]) -> str:
        return ", ".join(f"{axis} {value:g}" for axis, value in values.items()) or "none"

    rows = table("name")
    assert [row[0] for row in rows] == [*BUILT_IN, "lean-AXIS"]
    for name, weights, floors, _ in rows[:-1]:
        dial = preset_dial(name, AXES)
        assert (weights, floors) == (words(dict(dial.weights)), words(dict(dial.floors)))
    assert rows[-1][1] == f"AXIS {LEAN_WEIGHT:g}"


@pytest.mark.parametrize("row", table("weight"), ids=lambda row: row[0])
def test_a_weight_moves_a_share_as_the_table_says(row: list[str]) -> None:
    weight = float(row[0].partition("/")[0]) / float(row[0].partition("/")[2] or 1)
    for share, shown in zip((0.02, 0.1, 1 / 3, 0.9, 0.99), row[1:], strict=True):
        logits = torch.tensor([[share, 1 - share]], dtype=torch.float64).log()
        weights = torch.tensor([weight, 1.0], dtype=torch.float64)
        pi = mixture_weights(logits, torch.ones(1), weights, torch.zeros(2, dtype=torch.float64))
        assert f"{100 * float(pi[0, 0]):.0f}%" == shown


def test_the_preset_of_ones_own_is_a_config(tiny_config: Callable[..., RunConfig]) -> None:
    own = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)[0])
    config = tiny_config("no/model", **own)
    assert preset_dial("clinic", list(config.axes), config.presets).floors == {"harmless": 0.3}
