"""`rfkeras train`: train, evaluate on the test split and export."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import COMMANDS
from rfkeras.config.recipes import list_recipes
from rfkeras.config.resolve import add_flags, continue_config, resolve
from rfkeras.config.train_config import TrainConfig, differing_options, from_text, to_json
from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.utils.files import holder_file
from rfkeras.utils.progress import print_status

if TYPE_CHECKING:
    from rfkeras.training.distributed import Workers
    from rfkeras.training.run_dir import RunFolder

LATEST = ""  # --resume without a folder
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
    """Open the run that the flags name; create the folder of a new run.

    Args:
        options: The flags.
        trains_here: Whether this process trains, so that its devices are checked.

    Returns:
        Configuration, folder, and whether the run is resumed.

    Raises:
        ConfigError: Options contradict each other, or differ from those of the resumed run.
        CheckpointError: There is no run to resume.
    """
    from rfkeras.training.run_dir import RunFolder, create_run_folder, latest_unfinished

    if options.resume is not None:
        if options.recipe or options.run_dir or options.auto_resume:
            raise ConfigError(
                "--resume uses the options of the resumed run. Leave out --recipe, --run-dir "
                "and --auto-resume."
            )
        given = options.resume
        folder = latest_unfinished() if given == LATEST else RunFolder(Path(given))
        return _continue(folder, given_flags(options)), folder, True
    config = configure(options)
    if options.auto_resume:
        if options.run_dir is None:
            raise ConfigError("--auto-resume needs --run-dir, the run to resume or start.")
        folder = RunFolder(options.run_dir)
        if folder.last.exists() or folder.is_finished:
            there = folder.read_config()
            differing = differing_options(there, config)
            if differing:
                raise ConfigError(
                    f"{folder.root} contains a run with other options: {'; '.join(differing)}. "
                    "Use the same options, or another --run-dir."
                )
            return there, folder, True
    _check_before_start(config, trains_here)
    return config, create_run_folder(config, options.run_dir), False


def _check_before_start(config: TrainConfig, trains_here: bool) -> None:
    """Check devices and data before a run folder is created.

    Raises:
        ConfigError: The machine lacks the devices, or the data set does not have an option.
        DatasetError: The data set cannot be read, or a split is missing.
    """
    from rfkeras.training.data import check_splits, open_dataset
    from rfkeras.training.distributed import check_batch_size, make_strategy, read_cluster

    if trains_here and read_cluster() is None:  # a worker has already opened its devices
        check_batch_size(config.batch_size, make_strategy(config.devices))
    if config.dataset != "gm_instruments":  # which is rendered first, as part of the run
        check_splits(open_dataset(config))


def _continue(folder: RunFolder, flags: dict[str, Any]) -> TrainConfig:
    """Return the configuration of a resumed run, after changing it if flags were given."""
    from rfkeras.training.run_dir import continue_run

    before = folder.read_config()
    if not flags:
        return before
    config, rule = continue_config(before, flags)
    if config != before:
        continue_run(folder, config, rule)
        epochs = f"from {before.epochs} to {config.epochs} epochs"
        rates = f"{config.learning_rate:g} to {config.final_learning_rate:g}"
        decay = f"decaying from epoch {config.hold_epochs:.4g} to {config.decay_end_epoch:.4g}"
        print_status(f"Continuing {epochs}: {rule} ({rates}, {decay})")
    return config


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
    unused = False
    try:
        with folder.locked():
            if to_json(folder.read_config()) != to_json(config):
                raise ConfigError(f"Another process has just started a run in {folder.root}.")
            try:
                return _train(config, folder, resume, workers)
            except RFKerasError:
                unused = _is_unused(folder)
                raise
            except OSError as error:
                raise OSError(f"{error}. {_how_to_resume(folder)}") from error
    finally:
        if unused:  # the run failed before it started; Windows keeps locked files
            shutil.rmtree(folder.root)


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


def _is_unused(folder: RunFolder) -> bool:
    """Return whether a locked folder has only what a run has before it starts."""
    files = {path for path in folder.root.rglob("*") if path.is_file()}
    return files <= {folder.config, folder.lock, holder_file(folder.lock)}


def _how_to_resume(folder: RunFolder) -> str:
    if not folder.last.exists():
        return "Nothing was saved yet, so start the run again."
    return (
        "Resume from the last saved step with: "
        f"rfkeras train --resume {shlex.quote(str(folder.root))}"
    )


def _train(
    config: TrainConfig, folder: RunFolder, resume: bool, workers: Workers | None
) -> int:
    from rfkeras.evaluation.report_table import print_report
    from rfkeras.training.callbacks import Interrupted
    from rfkeras.training.run import train

    try:
        result = train(config, folder, resume, workers)
    except Interrupted as interrupt:
        raise Interrupted(f"Saved. {_how_to_resume(folder)}", interrupt.number) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_resume(folder)) from None
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
