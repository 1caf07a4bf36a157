"""`rfkeras train`: train, evaluate on the test split and export."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import COMMANDS
from rfkeras.config.recipes import list_recipes
from rfkeras.config.resolve import add_flags, resolve
from rfkeras.config.train_config import TrainConfig, differing_options, from_text, to_json
from rfkeras.errors import ConfigError

if TYPE_CHECKING:
    from rfkeras.training.distributed import Workers
    from rfkeras.training.run_dir import RunFolder

LATEST = ""  # --resume without a folder, as in rfkeras.training.api
# Flags that are not options of a run.
_OWN_FLAGS = frozenset(
    ["command", "run", "recipe", "run_dir", "resume", "auto_resume", "workers", "max_restarts"]
)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a training run."""
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        help="YAML table of the options below, or the name of a recipe in zoo/recipes "
        "(default: the recipe of the data set, if there is one)",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="folder of the run (default: a new one under runs/)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=LATEST,
        metavar="DIR",
        help="resume this run, or the newest unfinished one under runs/; with --epochs, train "
        "a finished run for more epochs",
    )
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="resume the run in --run-dir if there is one, otherwise start it",
    )
    add_flags(parser)


def open_run(
    options: argparse.Namespace, trains_here: bool = True
) -> tuple[TrainConfig, RunFolder, bool]:
    """Open the run that the flags name; see `rfkeras.training.api.open_run`."""
    from rfkeras.training import api

    return api.open_run(
        given_flags(options),
        recipe=options.recipe,
        run_dir=options.run_dir,
        resume=options.resume,
        auto_resume=options.auto_resume,
        trains_here=trains_here,
    )


def given_flags(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the run that were given as flags."""
    return {key: value for key, value in vars(options).items() if key not in _OWN_FLAGS}


def configure(options: argparse.Namespace) -> TrainConfig:
    """Return the configuration of a new run with these flags.

    Raises:
        ConfigError: An option has a value that is not allowed.
    """
    return resolve(given_flags(options), options.recipe)


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "train",
        help=COMMANDS["train"],
        usage=(
            "%(prog)s [--recipe FILE] [--run-dir DIR] [OPTIONS]\n"
            "       %(prog)s --resume [DIR] [--epochs N]"
        ),
        description=(
            "Train a model, evaluate it once on the test split, write tables and plots, and "
            "export a SavedModel. Flags override the recipe, and the recipe overrides the "
            "defaults below."
        ),
        epilog=f"Recipes: {', '.join(list_recipes())}.",
    )
    add_run_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.training.distributed import read_cluster

    cluster = read_cluster()
    if cluster is None:
        return _lead(options, None)
    from rfkeras.training.distributed import RESTART_STATUS, WorkerLost, open_workers

    print(f"Worker {cluster.index} is waiting for {', '.join(cluster.addresses)}")
    workers = open_workers(getattr(options, "devices", TrainConfig.devices), cluster)
    try:
        return _lead(options, workers) if workers.is_chief else _follow(options, workers)
    except WorkerLost as error:
        print(f"rfkeras train: error: {error}", file=sys.stderr, flush=True)
        os._exit(RESTART_STATUS)  # TensorFlow would wait for the lost worker


def _lead(options: argparse.Namespace, workers: Workers | None) -> int:
    """Train as the only process, or as the chief of several workers."""
    config, folder, resume = open_run(options)
    print(f"Run folder: {folder.root}", flush=True)
    done = resume and folder.is_finished and options.auto_resume
    if workers is not None:
        message = {"config": to_json(config), "folder": str(folder.root), "done": done}
        workers.broadcast(lambda: message)
    if done:
        print("The run is already finished.")
        return 0
    if resume and folder.is_finished:
        print(
            "The run is already finished. Its evaluation and export are made again; to train "
            "for more epochs, add --epochs N.",
            flush=True,
        )
    from rfkeras.evaluation.report_table import print_report
    from rfkeras.training.api import train_in

    result = train_in(config, folder, resume, workers)
    if result is None:  # not the chief
        return 0
    print_report(result.report, title="Test")
    if result.export_difference is not None:
        print(
            f"SavedModel: {folder.saved_model} (scores differ from the model's by at most "
            f"{result.export_difference:.1e}, checked in a clean process)"
        )
    print(f"Run folder: {folder.root}")
    return 0


def _follow(options: argparse.Namespace, workers: Workers) -> int:
    """Take part in the run that the chief leads."""
    from rfkeras.training.run import train
    from rfkeras.training.run_dir import RunFolder

    message = workers.broadcast(dict)
    config = from_text(message["config"], "the chief's configuration")
    if options.resume is None:
        differing = differing_options(config, configure(options))
        if differing:
            raise ConfigError(
                f"Worker {workers.index} has other options than the chief: "
                f"{'; '.join(differing)}. Give all workers the same options."
            )
    if not message["done"]:
        train(config, RunFolder(Path(message["folder"])), workers=workers)
    return 0
