"""`rfkeras train`: train, evaluate on the test split and export."""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path
from typing import Any

from rfkeras.cli.commands import COMMANDS
from rfkeras.complete import complete, recipes_for
from rfkeras.config import TrainConfig, add_flags, resolve
from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.initial_weights import check_agrees
from rfkeras.recipes import list_recipes

OWN_FLAGS = ("command", "run", "recipe", "run_dir", "resume")
LATEST = ""  # --resume without a folder


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
    add_flags(parser, TrainConfig)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.training.run_folder import RunFolder, create_run_folder, latest_unfinished

    flags = {key: value for key, value in vars(options).items() if key not in OWN_FLAGS}
    resume = options.resume is not None
    if resume:
        if flags or options.recipe or options.run_dir:
            raise ConfigError(
                "--resume takes the options of the run it goes on with; leave out: "
                + ", ".join(sorted(flags) or ["recipe or run_dir"])
            )
        given = options.resume
        folder = latest_unfinished() if given == LATEST else RunFolder(Path(given))
        config = folder.read_config()
    else:
        config = resolve(TrainConfig, flags, recipes_for(flags, options.recipe))
        check_agrees(config)
        config = complete(config)
        folder = create_run_folder(config, options.run_dir)
    print(f"Run folder: {folder.root}", flush=True)
    try:
        return _train(config, folder, resume)
    except RFKerasError:
        _remove_if_unused(folder)
        raise


def _remove_if_unused(folder: Any) -> None:
    """Leave no folder of a run that failed before it began."""
    if [path for path in folder.root.rglob("*") if path.is_file()] == [folder.config]:
        shutil.rmtree(folder.root)


def _train(config: TrainConfig, folder: Any, resume: bool) -> int:
    from rfkeras.evaluation.table import print_report
    from rfkeras.training.recorder import Interrupted
    from rfkeras.training.run import train

    try:
        result = train(config, folder, resume)
    except Interrupted:
        again = f"train.py --resume {shlex.quote(str(folder.root))}"
        raise KeyboardInterrupt(f"Saved; go on with: {again}") from None
    print_report(result.report, title="Test")
    if result.export_difference is not None:
        print(
            f"SavedModel: {folder.saved_model}, reloaded in a clean process, probabilities "
            f"within {result.export_difference:.1e} of the model's"
        )
    print(f"Run folder: {folder.root}")
    return 0
