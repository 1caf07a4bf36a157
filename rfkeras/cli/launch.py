"""`rfkeras launch`: train by several workers on this host."""

from __future__ import annotations

import argparse
from typing import Any

from rfkeras.cli.main import COMMANDS
from rfkeras.cli.train import add_run_arguments, open_run
from rfkeras.config.parsing import whole
from rfkeras.errors import ConfigError


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "launch",
        help=COMMANDS["launch"],
        usage="%(prog)s --workers N [OPTIONS OF rfkeras train]",
        description=(
            "Start several workers on this host that train one model together, each with its "
            "share of the GPUs or of the cores, and start all of them again from the last "
            "step saved when one is lost. On several hosts, give each process its TF_CONFIG "
            "and start `rfkeras train` there instead (docs/several_workers.md)."
        ),
        epilog=(
            "One process uses all GPUs of a host already (--devices gpu); workers of their "
            "own are for trying out what several hosts will do."
        ),
    )
    parser.add_argument(
        "--workers", required=True, metavar="N", help="processes that train together"
    )
    parser.add_argument(
        "--max-restarts",
        default=3,
        metavar="N",
        help="times that lost workers are started again without a step saved between (3)",
    )
    add_run_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.training.launch import Launcher

    count = whole(1)("--workers", options.workers)
    max_restarts = whole(0)("--max-restarts", options.max_restarts)
    config, folder, resume = open_run(options)
    if config.batch_size % count:
        raise ConfigError(
            f"--batch-size must be a multiple of the {count} workers. Received: "
            f"{config.batch_size}."
        )
    if resume and folder.is_finished:
        print(f"The run in {folder.root} is finished; nothing is left to do.")
        return 0
    return Launcher(folder, count, max_restarts).run()
