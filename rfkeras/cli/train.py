"""`rfkeras train`: train, evaluate on the test split and export."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.cli.commands import COMMANDS
from rfkeras.cli.train_options import add_run_arguments, configure, open_run
from rfkeras.config import TrainConfig, differing_options, from_text, to_json
from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.recipes import list_recipes

if TYPE_CHECKING:
    from rfkeras.training.run_folder import RunFolder
    from rfkeras.training.workers import Workers


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "train",
        help=COMMANDS["train"],
        usage=(
            "%(prog)s [--recipe FILE] [--run-dir DIR] [OPTIONS]\n       %(prog)s --resume [DIR]"
        ),
        description=(
            "Train a model, score the test split once, write tables and plots, and export "
            "a SavedModel. Defaults come from the recipe, flags win over it."
        ),
        epilog=f"Recipes: {', '.join(list_recipes())}.",
    )
    add_run_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.training.cluster import read_cluster

    cluster = read_cluster()
    if cluster is None:
        return _lead(options, None)
    from rfkeras.training.strategy import open_workers
    from rfkeras.training.workers import RESTART_STATUS, WorkerLost

    print(f"Worker {cluster.index} waits for the others: {', '.join(cluster.addresses)}")
    workers = open_workers(getattr(options, "devices", TrainConfig.devices), cluster)
    try:
        return _lead(options, workers) if workers.is_chief else _follow(options, workers)
    except WorkerLost as error:
        print(f"rfkeras train: error: {error}", file=sys.stderr, flush=True)
        os._exit(RESTART_STATUS)  # TensorFlow would wait for the lost one


def _lead(options: argparse.Namespace, workers: Workers | None) -> int:
    """Train alone, or as the chief of several workers."""
    config, folder, resume = open_run(options)
    print(f"Run folder: {folder.root}", flush=True)
    done = resume and folder.is_finished and options.auto_resume
    if workers is not None:
        message = {"config": to_json(config), "folder": str(folder.root), "done": done}
        workers.agree(lambda: message)
    if done:
        print("The run is finished; nothing is left to do.")
        return 0
    with folder.locked():
        if to_json(folder.read_config()) != to_json(config):
            raise ConfigError(f"Another process has just begun a run in {folder.root}.")
        try:
            return _train(config, folder, resume, workers)
        except RFKerasError:
            _remove_if_unused(folder)
            raise
        except OSError as error:
            raise OSError(f"{error}. {_how_to_go_on(folder)}") from error


def _follow(options: argparse.Namespace, workers: Workers) -> int:
    """Take part in the run that the chief leads."""
    from rfkeras.training.run import train
    from rfkeras.training.run_folder import RunFolder

    told = workers.agree(dict)
    config = from_text(TrainConfig, told["config"], "the chief's configuration")
    if options.resume is None:
        differing = differing_options(config, configure(options))
        if differing:
            raise ConfigError(
                f"Worker {workers.index} was started with other options than the chief: "
                f"{'; '.join(differing)}. Give all workers the same."
            )
    if not told["done"]:
        train(config, RunFolder(Path(told["folder"])), workers=workers)
    return 0


def _remove_if_unused(folder: RunFolder) -> None:
    """Leave no folder of a run that failed before it began."""
    files = {path for path in folder.root.rglob("*") if path.is_file()}
    if files <= {folder.config, folder.lock}:
        shutil.rmtree(folder.root)


def _how_to_go_on(folder: RunFolder) -> str:
    if not folder.last.exists():
        return "Nothing was saved yet: no step is lost by beginning anew."
    return (
        f"Go on from the last step saved by: train.py --resume {shlex.quote(str(folder.root))}"
    )


def _train(
    config: TrainConfig, folder: RunFolder, resume: bool, workers: Workers | None
) -> int:
    from rfkeras.evaluation.table import print_report
    from rfkeras.training.recorder import Interrupted
    from rfkeras.training.run import train

    try:
        result = train(config, folder, resume, workers)
    except Interrupted as interrupt:
        raise Interrupted(f"Saved. {_how_to_go_on(folder)}", interrupt.number) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(folder)) from None
    if result is None:  # not the chief
        return 0
    print_report(result.report, title="Test")
    if result.export_difference is not None:
        print(
            f"SavedModel: {folder.saved_model}, reloaded in a clean process, probabilities "
            f"within {result.export_difference:.1e} of the model's"
        )
    print(f"Run folder: {folder.root}")
    return 0
