"""The plan as tables."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignx.cli.show import WIDTH
from alignx.plan.estimate import Fit, Plan
from alignx.plan.memory import Need


def show_plan(plan: Plan) -> None:
    """Print a plan."""
    console = Console(width=WIDTH, highlight=False)
    shapes, tokens = plan.shapes, plan.tokens
    memory = plan.machine.memory / 2**30
    lines = [
        f"{plan.model}: {shapes.parameters:,} parameters, {shapes.layers} layers; an adapter has "
        f"{shapes.adapter_parameters:,} ({4 * shapes.adapter_parameters / 2**20:.0f} MiB on disk)",
        f"machine: {plan.machine.name}, {memory:.1f} GiB{' each' if plan.machine.devices > 1 else ''}; "
        f"training in {plan.precision}",
        f"tokens: {tokens.total:,} (Stage 1 training {sum(tokens.experts.values()):,})",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    console.print(_needs_table(plan.needs))
    console.print(_fits_table(plan.fits))
    hours = ", ".join(f"{part} {_duration(value)}" for part, value in plan.hours.items())
    console.print(Text(f"time, an estimate: {hours}"), soft_wrap=True)
    console.print(Text(f"advice: {plan.advice}"), soft_wrap=True)
    for line in plan.assumptions:
        console.print(Text(f"assumed: {line}"), soft_wrap=True)


def _needs_table(needs: Sequence[Need]) -> Table:
    """Peak memory of each part of the run."""
    table = Table(title="peak memory, GiB", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("what", ratio=2)
    table.add_column("total", justify="right")
    table.add_column("made of", ratio=4)
    for need in needs:
        parts = ", ".join(f"{part} {size / 2**30:.2f}" for part, size in need.parts.items())
        table.add_row(need.name, f"{need.total / 2**30:.2f}", parts)
    return table


def _fits_table(fits: Sequence[Fit]) -> Table:
    """Ways to train."""
    table = Table(title="ways to train Stage 1", box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in ("method", "base weights", "GiB a device", "fits", ""):
        table.add_column(heading, justify="right" if heading == "GiB a device" else "left")
    for fit in fits:
        note = "" if fit.available else "needs a CUDA GPU"
        table.add_row(
            fit.method, fit.storage, f"{fit.need.total / 2**30:.2f}", "fits" if fit.fits else "does not fit", note
        )
    return table


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.1f} h"
