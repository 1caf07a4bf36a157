"""Flags that other commands share with `rfkeras train`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rfkeras.config import TrainConfig
from rfkeras.options.parsers import metavar, switch


def add_train_flags(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add flags of a training run that mean the same here.

    Flags that are not given leave no trace in the namespace.

    Args:
        parser: The parser of the command.
        names: Fields of `TrainConfig`.
    """
    for name in names:
        field = TrainConfig.__dataclass_fields__[name]
        metadata = field.metadata
        flag = "--" + name.replace("_", "-")
        if metadata["parse"] is switch:
            parser.add_argument(
                flag,
                default=argparse.SUPPRESS,
                action=argparse.BooleanOptionalAction,
                help=metadata["help"],
            )
        else:
            parser.add_argument(
                flag, default=argparse.SUPPRESS, metavar=metavar(field), help=metadata["help"]
            )
