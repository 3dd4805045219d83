"""What `alignx probe` prints."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from alignx.cli.show import WIDTH, plain_table
from alignx.report.probe import probe_tables


def show_probe(metrics: Mapping[str, Any]) -> None:
    """Tables of every probe that was made, and a line for each that was left out."""
    console = Console(width=WIDTH, highlight=False)
    tables, left_out = probe_tables(metrics)
    for table in tables:
        console.print(plain_table(table))
    for line in left_out:
        console.print(Text(line), soft_wrap=True)
