"""The flags that name a training run, and the run that they name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.complete import complete, recipes_for
from rfkeras.config import TrainConfig, add_flags, differing_options, resolve
from rfkeras.errors import ConfigError
from rfkeras.initial_weights import check_agrees

if TYPE_CHECKING:
    from rfkeras.training.run_folder import RunFolder

LATEST = ""  # --resume without a folder
# Flags that are no options of a run.
_OWN_FLAGS = frozenset(
    ["command", "run", "recipe", "run_dir", "resume", "auto_resume", "workers", "max_restarts"]
)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of a training run."""
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        help="YAML table of the options below, or the name of a recipe in zoo/recipes "
        "(default: the data set's own, if there is one)",
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="folder of the run (default: runs/...)"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=LATEST,
        metavar="DIR",
        help="go on with this run, or with the newest unfinished one under runs/",
    )
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="go on with the run in --run-dir if it holds one, else begin it: the same "
        "command starts a job and starts it again",
    )
    add_flags(parser, TrainConfig)


def open_run(options: argparse.Namespace) -> tuple[TrainConfig, RunFolder, bool]:
    """The run that the flags name; the folder of a new one is made.

    Returns:
        Configuration, folder, and whether the run goes on.

    Raises:
        ConfigError: Options that do not go together, or other ones than the run began with.
        CheckpointError: There is no run to go on with.
    """
    from rfkeras.training.run_folder import RunFolder, create_run_folder, latest_unfinished

    if options.resume is not None:
        flags = given_flags(options)
        if flags or options.recipe or options.run_dir or options.auto_resume:
            raise ConfigError(
                "--resume takes the options of the run it goes on with; leave out: "
                + ", ".join(sorted(flags) or ["recipe, run_dir or auto_resume"])
            )
        given = options.resume
        folder = latest_unfinished() if given == LATEST else RunFolder(Path(given))
        return folder.read_config(), folder, True
    config = configure(options)
    if options.auto_resume:
        if options.run_dir is None:
            raise ConfigError("--auto-resume needs --run-dir: the run to go on with or begin.")
        folder = RunFolder(options.run_dir)
        if folder.last.exists() or folder.is_finished:
            there = folder.read_config()
            differing = differing_options(there, config)
            if differing:
                raise ConfigError(
                    f"{folder.root} holds a run with other options: {'; '.join(differing)}. "
                    "Give the same, or choose another --run-dir."
                )
            return there, folder, True
    return config, create_run_folder(config, options.run_dir), False


def given_flags(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the run that were given."""
    return {key: value for key, value in vars(options).items() if key not in _OWN_FLAGS}


def configure(options: argparse.Namespace) -> TrainConfig:
    """The configuration that the flags give a new run.

    Raises:
        ConfigError: An option is not allowed.
    """
    flags = given_flags(options)
    config = resolve(TrainConfig, flags, recipes_for(flags, options.recipe))
    check_agrees(config)
    return complete(config)
