"""The application that the modules of commands register with."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Align a causal language model on several axes and mix the experts with calibrated weights.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RunArgument = Annotated[Path, typer.Argument(help="Run directory.", show_default=False)]
