"""`rfkeras models`: the names of the zoo."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import COMMANDS

if TYPE_CHECKING:
    from rfkeras.rf.axis import AxisField


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("models", help=COMMANDS["models"])
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

    table = Table(box=None, pad_edge=False)
    ready: dict[str, list[str]] = {}
    for full_name in zoo.list_weights():
        model, _, weights = full_name.partition(":")
        ready.setdefault(model, []).append(weights)
    for heading in ("model", "rho", "RF (pixels)", "width", "weights", "what it is"):
        table.add_column(heading, no_wrap=heading in ("model", "weights"))
    names = zoo.list_models(options.pattern)
    if not names:
        known = ", ".join(zoo.list_models())
        raise ConfigError(f"No model matches {options.pattern!r}. There are: {known}.")
    for name in names:
        info = zoo.model_info(name)
        rho, width = (str(info.options.get(option, "")) for option in ("rho", "width"))
        plan = info.plan_for()
        field = f"{_size(plan.time)} x {_size(plan.frequency)}"
        weights = ", ".join(ready.get(name, []))
        table.add_row(name, rho, field, width, weights, info.summary)
    Console().print(table)
    return 0


def _size(field: AxisField | None) -> str:
    return "all" if field is None else str(field.size)
