"""`rfkeras models`: the names of the zoo."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("models", help="list the models of the zoo")
    parser.add_argument(
        "pattern", nargs="?", default="*", help='shell pattern, such as "resnet_rf*"'
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console
    from rich.table import Table

    import zoo
    from rfkeras.errors import ConfigError
    from rfkeras.receptive_field import rf_of_rho

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "rho", "RF (pixels)", "width", "what it is"):
        table.add_column(heading)
    names = zoo.list_models(options.pattern)
    if not names:
        known = ", ".join(zoo.list_models())
        raise ConfigError(f"No model matches {options.pattern!r}. There are: {known}.")
    for name in names:
        info = zoo.model_info(name)
        rho, width = (info.options.get(option, "") for option in ("rho", "width"))
        size = " x ".join(str(side) for side in rf_of_rho(rho)) if rho != "" else ""
        table.add_row(name, str(rho), size, str(width), info.summary)
    Console().print(table)
    return 0
