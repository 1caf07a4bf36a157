"""`rfkeras models`: list the models of the zoo."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import COMMANDS
from rfkeras.errors import ConfigError
from rfkeras.utils.table import Table, open_console

if TYPE_CHECKING:
    from rfkeras.rf.axis import LayerChain
    from zoo import ModelInfo


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "models",
        help=COMMANDS["models"],
        description=(
            "List the models of the zoo: their receptive field (RF, in pixels of the "
            "spectrogram), the options that differ from the first model of the group, and "
            "their pretrained weights. Use a model with pretrained weights as MODEL or "
            "MODEL:WEIGHTS."
        ),
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help='shell pattern, such as "resnet_rf*"'
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import zoo
    from zoo.pretrained import read_index

    names = zoo.list_models(options.pattern)
    if not names:
        known = ", ".join(zoo.list_models())
        raise ConfigError(f"No model matches {options.pattern!r}. Models: {known}.")
    weights = [entry for entry in read_index() if entry.model in names]
    groups: dict[str, list[ModelInfo]] = {}
    for name in names:
        info = zoo.model_info(name)
        groups.setdefault(info.builder.__name__, []).append(info)
    console = open_console()
    for base, infos in groups.items():
        console.print(zoo.model_info(base).summary, style="bold")
        headings = ["model", "RF", "width", "options"]
        table = Table(headings, right=["RF", "width"], fixed=["model"])
        for info in infos:
            table.add_row(
                info.name,
                _field(info.plan_for()),
                str(info.options.get("width", "")),
                ", ".join(_changed_options(info, zoo.model_info(base))),
            )
        console.print(table.to_rich())
        console.print()
    if weights:
        console.print("Pretrained weights, as MODEL:WEIGHTS", style="bold")
        for entry in weights:
            mark = "**" if entry.recommended else "*" if entry.default else ""
            console.print(f"{entry.model}:{entry.name}{mark}")
        console.print()
        console.print("*  weights that the name of the model alone means")
        console.print("** these, and used by `rfkeras tag` if no model is named")
    return 0


def _field(plan: LayerChain) -> str:
    """Return the receptive field, as one number if it is the same on both axes."""
    fields = (plan.time, plan.frequency)
    sizes = ["unlimited" if field is None else str(field.size) for field in fields]
    return sizes[0] if sizes[0] == sizes[1] else " x ".join(sizes)


def _changed_options(info: ModelInfo, base: ModelInfo) -> Iterator[str]:
    for name, value in info.options.items():
        if name != "width" and value != base.options[name]:
            yield name if value is True else f"{name}={value}"
