"""`rfkeras train`: train, evaluate on the test split and export."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from rfkeras.config import TrainConfig, add_flags, read_yaml, resolve
from rfkeras.errors import ConfigError

OWN_FLAGS = ("command", "run", "recipe", "run_dir", "resume")
LATEST = ""  # --resume without a folder


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "train",
        help="train a model, evaluate it and export it",
        description=(
            "Train a model, score the test split once, write tables and plots, and export "
            "a SavedModel. Defaults come from the recipe, flags win over it."
        ),
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
    return _train(config, folder, resume)


def _train(config: TrainConfig, folder: Any, resume: bool) -> int:
    from rfkeras.evaluation.table import print_report
    from rfkeras.training.recorder import Interrupted
    from rfkeras.training.run import train

    try:
        result = train(config, folder, resume)
    except Interrupted:
        raise KeyboardInterrupt(f"Saved; go on with: train.py --resume {folder.root}") from None
    print_report(result.report, title="Test")
    print(
        f"SavedModel: {folder.saved_model}, reloaded in a clean process, probabilities "
        f"within {result.export_difference:.1e} of the model's"
    )
    print(f"Run folder: {folder.root}")
    return 0


def recipes_for(flags: dict[str, Any], recipe: str | None) -> list[tuple[str, dict[str, Any]]]:
    """Recipes that apply, the stronger last: the named one, else the data set's own."""
    from zoo import RECIPES

    if recipe is not None:
        path = Path(recipe)
        if not path.suffix and not path.exists():
            path = RECIPES / f"{recipe}.yaml"
            if not path.exists():
                known = sorted(p.stem for p in RECIPES.glob("*.yaml"))
                raise ConfigError(
                    f"There is no recipe {recipe!r}: neither a file of that name nor one "
                    f"of {', '.join(known)}."
                )
        return [(str(path), read_yaml(path))]
    dataset = flags.get("dataset", TrainConfig.dataset)
    path = RECIPES / f"{dataset}.yaml"
    return [(str(path), read_yaml(path))] if path.is_file() else []


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
    from rfkeras.receptive_field import plan_trunk

    known = zoo.model_info(config.model).options
    given = config.model_options()
    for name in given:
        if name not in known:
            raise ConfigError(unknown_name(f"option of {config.model}", name, known))
    filled = {name: known[name] for name in config.model_option_names if name in known} | given
    if "rho" in filled:
        plan_trunk(filled["rho"], tuple(filled["blocks"]), filled["allow_rf_change"])
    if config.dataset == "gm_instruments" and config.dataset_size is None:
        filled["dataset_size"] = DEFAULT_SIZE
    if config.data_dir is not None and not is_remote(config.data_dir):
        filled["data_dir"] = str(Path(config.data_dir).resolve())
    return replace(config, **filled)
