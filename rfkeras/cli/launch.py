"""`rfkeras launch`: train with several workers on this host.

`python -m rfkeras.cli.launch RUN_FOLDER` is one of the workers. It runs `rfkeras train --resume
RUN_FOLDER` with the TF_CONFIG of its environment, and exits when its standard input closes, so
that it does not outlive a launcher that was killed.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rfkeras.cli.main import COMMANDS
from rfkeras.cli.main import run as run_command
from rfkeras.cli.train import add_run_arguments, open_run
from rfkeras.config.parsing import whole
from rfkeras.errors import ConfigError
from rfkeras.utils.processes import obey_parent


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "launch",
        help=COMMANDS["launch"],
        usage="%(prog)s --workers N [OPTIONS OF rfkeras train]",
        description=(
            "Train one model with several workers on this host, each with a share of the GPUs "
            "or cores. If a worker dies, all workers restart from the last saved step. On "
            "several hosts, run `rfkeras train` with a TF_CONFIG on each host instead "
            "(docs/several_workers.md)."
        ),
        epilog=(
            "A single process already uses all GPUs of a host (--devices gpu). This command is "
            "for trying out a job for several hosts."
        ),
    )
    parser.add_argument(
        "--workers", required=True, metavar="N", help="number of worker processes"
    )
    parser.add_argument(
        "--max-restarts",
        default=3,
        metavar="N",
        help="restarts in a row without a saved step before giving up (default: 3)",
    )
    add_run_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.training.launch import Launcher

    count = whole(1)("--workers", options.workers)
    max_restarts = whole(0)("--max-restarts", options.max_restarts)
    config, folder, resume = open_run(options, trains_here=False)
    if config.batch_size % count:
        raise ConfigError(
            f"--batch-size must be a multiple of --workers {count}. Received: "
            f"{config.batch_size}."
        )
    if resume and folder.is_finished:
        print(f"The run in {folder.root} is already finished.")
        return 0
    return Launcher(folder, count, max_restarts).run()


if __name__ == "__main__":
    obey_parent()
    sys.exit(run_command(["train", "--resume", sys.argv[1]]))
