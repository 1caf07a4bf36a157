"""`rfkeras` and its commands.

Parsing and `--help` import no framework: each command's module imports what it needs when
it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rfkeras import __version__
from rfkeras.cli import (
    convert,
    data,
    embed,
    evaluate,
    export,
    models,
    rf,
    sweep,
    tag,
    train,
    tune,
)
from rfkeras.errors import RFKerasError

COMMANDS = (train, evaluate, tag, embed, export, convert, sweep, tune, rf, data, models)
INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="rfkeras",
        description="Receptive-field-regularised CNNs for music tagging.",
    )
    parser.add_argument("--version", action="version", version=f"rfkeras {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        Exit status: 0 when all was done, 1 for an error that the message explains, 130
        after Ctrl-C. (Wrong flags end in argparse with status 2.)
    """
    options = build_parser().parse_args(arguments)
    # TensorFlow's native notes at start-up (CUDA factories registered twice, and the like)
    # say nothing to a user; real errors come as Python exceptions all the same.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return int(options.run(options))
    except (RFKerasError, OSError) as error:
        print(f"rfkeras {options.command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"rfkeras {options.command}: interrupted. {interrupt}", file=sys.stderr)
        return INTERRUPTED


def main() -> None:
    """Entry point of the console command."""
    sys.exit(run(sys.argv[1:]))
