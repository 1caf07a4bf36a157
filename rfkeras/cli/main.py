"""`rfkeras` and its commands.

Only the module of the command that runs is imported, and that imports what it needs when it
runs: parsing and `--help` load neither a framework nor NumPy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module

from rfkeras import __version__
from rfkeras.cli.collector import leave_everything
from rfkeras.cli.commands import COMMANDS
from rfkeras.errors import RFKerasError

INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C


def build_parser(complete: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        complete: Commands that get their flags; of the others it knows the name, which is
            enough to list them. By default all do.
    """
    parser = argparse.ArgumentParser(
        prog="rfkeras",
        description="Receptive-field-regularised CNNs for music tagging.",
    )
    parser.add_argument("--version", action="version", version=f"rfkeras {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, shown in COMMANDS.items():
        if name in complete:
            import_module(f"rfkeras.cli.{name}").add_parser(commands)
        else:
            commands.add_parser(name, help=shown, add_help=False)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        Exit status: 0 when all was done, 1 for an error that the message explains, 130
        after Ctrl-C, 143 after a SIGTERM that was obeyed. (Wrong flags end in argparse with
        status 2.)
    """
    # No flag before the command takes a value, so the first word that names one is it.
    named = next((word for word in arguments if word in COMMANDS), None)
    options = build_parser(() if named is None else (named,)).parse_args(arguments)
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
        return getattr(interrupt, "status", INTERRUPTED)


def main() -> None:
    """Entry point of the console command."""
    status = run(sys.argv[1:])
    leave_everything()
    sys.exit(status)
