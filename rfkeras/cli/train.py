"""`rfkeras train`: train, evaluate on the test split and export."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from rfkeras.config import WEIGHT_DECAY, TrainConfig, add_flags, resolve
from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.recipes import Recipe, adapt_recipe, list_recipes, read_recipe

OWN_FLAGS = ("command", "run", "recipe", "run_dir", "resume")
LATEST = ""  # --resume without a folder


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "train",
        help="train a model, evaluate it and export it",
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
        config = complete(resolve(TrainConfig, flags, recipes_for(flags, options.recipe)))
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
        raise KeyboardInterrupt(f"Saved; go on with: train.py --resume {folder.root}") from None
    print_report(result.report, title="Test")
    if result.export_difference is not None:
        print(
            f"SavedModel: {folder.saved_model}, reloaded in a clean process, probabilities "
            f"within {result.export_difference:.1e} of the model's"
        )
    print(f"Run folder: {folder.root}")
    return 0


def recipes_for(flags: dict[str, Any], recipe: str | None) -> list[Recipe]:
    """Recipes that apply, the stronger last: the named one, else the data set's own.

    They are without what belongs to another data set or model than the flags name.
    """
    if recipe is None:
        dataset = flags.get("dataset", TrainConfig.dataset)
        recipe = dataset if dataset in list_recipes() else None
    return [] if recipe is None else adapt_recipe(read_recipe(recipe), flags)


def complete(config: TrainConfig) -> TrainConfig:
    """Write out what the model and the data set default to, and check the model's options.

    A run that is resumed or evaluated later must not depend on later defaults, nor on the
    folder it is called from.

    Raises:
        ConfigError: Unknown name, an option the model has not, or a wrong rho or blocks.
    """
    import zoo
    from rfkeras.data.remote import is_remote
    from rfkeras.data.sources.gm_instruments.layout import DEFAULT_SIZE
    from rfkeras.errors import unknown_name

    info = zoo.model_info(config.model)
    known = info.options
    given = config.model_options()
    for name in given:
        if name not in known:
            raise ConfigError(unknown_name(f"option of {config.model}", name, known))
    filled = {
        name: known[name] for name in config.model_option_names() if name in known
    } | given
    info.plan_for(**given)  # refuses a receptive field that cannot be
    if config.dataset == "gm_instruments" and config.dataset_size is None:
        filled["dataset_size"] = DEFAULT_SIZE
    if config.data_dir is not None and not is_remote(config.data_dir):
        filled["data_dir"] = str(Path(config.data_dir).resolve())
    for name in ("audio_dir", "sound_font"):
        if getattr(config, name) is not None:
            filled[name] = str(Path(getattr(config, name)).resolve())
    if config.optimizer == "adamw" and config.weight_decay is None:
        filled["weight_decay"] = WEIGHT_DECAY
    if config.averaging == "swa":
        filled["swa_start_epoch"] = config.first_averaged_epoch
    filled["hold_epochs"] = config.hold_until_epoch
    filled["decay_end_epoch"] = config.decay_until_epoch
    if config.prunes:
        filled["prune_epochs"] = config.prune_until_epoch
    return replace(config, **filled)
