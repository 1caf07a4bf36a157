"""From flags and a recipe to the resolved configuration of a run.

`add_flags` defines the flags, `resolve` turns them into a `TrainConfig`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import zoo
from rfkeras.config.options import ModelOptions
from rfkeras.config.parsing import Needs, metavar, switch
from rfkeras.config.recipes import Recipe, list_recipes, read_recipe
from rfkeras.config.train_config import (
    COMMAND_LINE,
    WEIGHT_DECAY,
    TrainConfig,
    flag,
    from_json,
    parse_options,
)
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.utils.remote import is_remote
from zoo.transfer import check_options, full_name, options_of_weights

# Options that belong to one data set and do not apply to another.
DATA_SET_OPTIONS = (
    "data_dir",
    "audio_dir",
    "subset",
    "fold",
    "dataset_size",
    "sound_font",
    "test_share",
    "allow_absolute",
    "split_rule",
)
# Defaults with initial weights, chosen with `python -m benchmarks.fine_tuning`.
FINE_TUNING_LEARNING_RATE = 1e-2  # of the classifier
FINE_TUNING_TRUNK_LR_SCALE = 0.01  # so that the backbone has the usual 1e-4
# Options of the network, which its weights imply.
_NETWORK_OPTIONS = (
    "model",
    *ModelOptions.model_option_names(),
    "frontend",
    "fixed_floor",
    "input_channels",
)


def add_flags(parser: argparse.ArgumentParser, leave_out: Sequence[str] = ()) -> None:
    """Add one flag per option of `TrainConfig`, in the groups of the options.

    Flags that are not given are not in the namespace.

    Args:
        parser: The parser of a command.
        leave_out: Options that get no flag.
    """
    fields = {f.name: f for f in dataclasses.fields(TrainConfig)}
    parts: tuple[Any, ...] = TrainConfig.__mro__[1:-1]
    for part in parts:
        group = parser.add_argument_group(part.group_title)
        for name in part.__annotations__:
            if name in fields and name not in leave_out:
                _add_flag(group, fields[name])


def _add_flag(group: Any, field: dataclasses.Field[Any]) -> None:
    shown = "" if field.default is None else f" (default: {field.default})"
    settings: dict[str, Any] = {
        "help": field.metadata["help"] + shown,
        "default": argparse.SUPPRESS,
    }
    if field.metadata["parse"] is switch:
        settings["action"] = argparse.BooleanOptionalAction
    else:
        settings["metavar"] = metavar(field)
    group.add_argument(flag(field.name), **settings)


def resolve(
    flags: Mapping[str, Any], recipe: str | None = None, *, shared: bool = False
) -> TrainConfig:
    """Return the configuration of a run from its flags and its recipe.

    Each source overrides those before it: the defaults, the options recorded with the
    initial weights, the recipes (a recipe after those it extends), the flags.

    Args:
        flags: Options from the command line. The values may be text.
        recipe: Path or name of the recipe. None: the recipe named like the data set, if
            there is one.
        shared: Several runs share this configuration and each adds its own options, as
            in a search. Call `complete` on the configuration of each run.

    Raises:
        ConfigError: An option is unknown, a value is not allowed, options contradict each
            other or the initial weights, or an option has no effect.
        CheckpointError: The initial weights cannot be read.
    """
    config = merge_options(flags, option_sources(flags, recipe))
    if shared:
        return config
    check_initial_weights(config)
    return complete(config)


def option_sources(flags: Mapping[str, Any], recipe: str | None = None) -> list[Recipe]:
    """Return the sources of options that the flags override, the weakest first.

    These are the initial weights, if any, and the recipes without the options that belong
    to another data set or model than the flags name.

    Args:
        flags: As in `resolve`.
        recipe: As in `resolve`.
    """
    recipe = recipe_in_use(flags, recipe)
    chain = [] if recipe is None else adapt_recipe(read_recipe(recipe), flags)
    named: dict[str, Any] = {}
    for options in (*(options for _, options in chain), flags):
        named |= {key: options[key] for key in ("init_weights", "model") if key in options}
    weights, model = named.get("init_weights"), named.get("model", TrainConfig.model)
    if weights is None:
        return chain
    given: dict[str, Any] = {}
    for options in (*(options for _, options in chain), flags):
        given |= options
    implied = implied_options(str(weights), model) | _fine_tuning_defaults(given)
    return [(str(weights), implied), *chain]


def recipe_in_use(flags: Mapping[str, Any], recipe: str | None = None) -> str | None:
    """Return the given recipe, or the one named like the data set; None if there is none.

    Args:
        flags: As in `resolve`.
        recipe: As in `resolve`.
    """
    if recipe is not None:
        return recipe
    dataset: str = flags.get("dataset", TrainConfig.dataset)
    return dataset if dataset in list_recipes() else None


def _fine_tuning_defaults(given: Mapping[str, Any]) -> dict[str, float]:
    """Return the default learning rates of a run with initial weights.

    A new classifier needs a higher rate than the backbone, which keeps the usual one. If a
    rate is given, nothing changes.
    """
    if {"learning_rate", "trunk_lr_scale"} & set(given):
        return {}
    never_trains = given.get("freeze") == "trunk" and given.get("unfreeze_after") is None
    scale = {} if never_trains else {"trunk_lr_scale": FINE_TUNING_TRUNK_LR_SCALE}
    return {"learning_rate": FINE_TUNING_LEARNING_RATE, **scale}


def implied_options(weights: str, model: str) -> dict[str, Any]:
    """Return the options of the network that initial weights imply.

    Args:
        weights: Name of pretrained weights, a run folder or a file.
        model: Name of the model, for pretrained weights that are named without theirs.
    """
    implied = options_of_weights(
        weights, model, known_models=zoo.list_models(), read_run=_network_of_run
    )
    return {name: implied[name] for name in implied if name in _NETWORK_OPTIONS}


def _network_of_run(config_file: Path) -> dict[str, Any]:
    config = from_json(config_file)
    return {name: getattr(config, name) for name in _NETWORK_OPTIONS}


def adapt_recipe(chain: list[Recipe], flags: Mapping[str, Any]) -> list[Recipe]:
    """Drop the options of recipes that do not apply to the data set and model of the flags.

    If a flag names another data set than the recipe, the recipe's folders, subset and fold
    are dropped. If a flag names another model, options that this model does not have are
    dropped. A recipe that names no model is for the default one.

    Args:
        chain: Recipes, from `read_recipe`.
        flags: Options from the command line.

    Raises:
        ConfigError: The flags name an unknown model.
    """
    own: dict[str, Any] = {}
    for _, options in chain:
        own |= {name: options[name] for name in ("dataset", "model") if name in options}
    foreign: set[str] = set()
    if "dataset" in own and flags.get("dataset", own["dataset"]) != own["dataset"]:
        foreign.update(DATA_SET_OPTIONS)
    model = own.get("model", TrainConfig.model)
    if flags.get("model", model) != model:
        known = zoo.model_info(flags["model"]).options
        foreign.update(set(TrainConfig.model_option_names()) - set(known))
    return [
        (source, {name: value for name, value in options.items() if name not in foreign})
        for source, options in chain
    ]


def merge_options(flags: Mapping[str, Any], recipes: Sequence[Recipe] = ()) -> TrainConfig:
    """Return the configuration from the defaults, then each recipe in turn, then the flags.

    Args:
        flags: Options from the command line.
        recipes: Other sources with their options, each overriding those before it.

    Raises:
        ConfigError: An option is unknown (the nearest is suggested), a value is not
            allowed, or an option has no effect because another one is off.
    """
    sources = [*recipes, (COMMAND_LINE, flags)]
    given = [(source, parse_options(options, source)) for source, options in sources]
    _check_needs(given)
    values: dict[str, Any] = {}
    for _, options in given:
        values |= options
    return TrainConfig(**values)


def _check_needs(given: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Reject options that have no effect because another option is off.

    A flag may turn off what a recipe turns on, and a recipe what the recipe it extends
    turns on. The details given by the overridden source are then ignored, not rejected.

    Args:
        given: Sources with their parsed options, each overriding those before it.
    """
    values = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    strength: dict[str, int] = {}
    for place, (_, options) in enumerate(given):
        values |= options
        strength |= dict.fromkeys(options, place)
    for field in dataclasses.fields(TrainConfig):
        needs: Needs | None = field.metadata["needs"]
        if needs is None or field.name not in strength or needs.is_on(values):
            continue
        place = strength[field.name]
        if any(strength.get(name, -1) > place for name in needs.switches):
            continue
        source, value = given[place][0], values[field.name]
        if source == COMMAND_LINE:
            raise ConfigError(f"{flag(field.name)} {value} needs {needs.how}.")
        raise ConfigError(f"{source}: {field.name} needs {needs.how}. Received: {value!r}.")


def check_initial_weights(config: TrainConfig) -> None:
    """Reject options of the network that differ from those of the initial weights.

    Raises:
        ConfigError: An option differs; the message shows the weights' value.
        CheckpointError: The initial weights cannot be read.
    """
    if config.init_weights is None:
        return
    implied = implied_options(config.init_weights, config.model)
    model = implied.pop("model", config.model)
    if zoo.model_info(model).builder is not zoo.model_info(config.model).builder:
        raise ConfigError(
            f"The weights {config.init_weights} belong to a {model}. Use --model {model}. "
            f"Received: {config.model}."
        )
    given = {name: getattr(config, name) for name in implied}
    given = {name: value for name, value in given.items() if value is not None}
    check_options(config.init_weights, implied, given)


# Options that may change when a run is continued: they only affect later steps.
CHANGEABLE = (
    "epochs",
    "learning_rate",
    "final_learning_rate",
    "hold_epochs",
    "decay_end_epoch",
    "clip_norm",
    "early_stop_epochs",
)


def continue_config(config: TrainConfig, flags: Mapping[str, Any]) -> tuple[TrainConfig, str]:
    """Return the configuration of a run that is continued with other options.

    If the run has the default schedule, which depends on the number of epochs, it gets the
    default schedule for the new number. A schedule of its own stays, and the added epochs use
    its final learning rate.

    Args:
        config: The complete configuration of the run.
        flags: Options that change, all from `CHANGEABLE`. The values may be text.

    Returns:
        The configuration, and a sentence about the schedule.

    Raises:
        ConfigError: An option cannot change, a value is not allowed, or there would be fewer
            epochs than before.
    """
    fixed = sorted(set(flags) - set(CHANGEABLE))
    if fixed:
        raise ConfigError(
            "--resume uses the options of the resumed run. Leave out: "
            f"{', '.join(map(flag, fixed))}. These may change: "
            f"{', '.join(map(flag, CHANGEABLE))}. For other changes, start a new run with "
            "--init-weights."
        )
    changes = parse_options(flags, COMMAND_LINE)
    epochs = changes.get("epochs", config.epochs)
    if epochs < config.epochs:
        raise ConfigError(
            f"--epochs is the total number of epochs, so with --resume it must be at least "
            f"{config.epochs}, that of the run. Received: {epochs}."
        )
    schedule = ("hold_epochs", "decay_end_epoch")
    plain = replace(config, hold_epochs=None, decay_end_epoch=None)
    own = (config.hold_epochs, config.decay_end_epoch)
    is_default = own == (plain.hold_until_epoch, plain.decay_until_epoch)
    if is_default or set(schedule) & set(changes):
        changed = replace(plain if is_default else config, **changes)
        rule = f"the learning-rate schedule is that of a run of {epochs} epochs"
    else:
        changed = replace(config, **changes)
        rule = "the learning-rate schedule is kept, and the added epochs use its final rate"
    hold, end = changed.hold_until_epoch, changed.decay_until_epoch
    return replace(changed, hold_epochs=hold, decay_end_epoch=end), rule


def complete(config: TrainConfig) -> TrainConfig:
    """Fill in the defaults of the model and the data set, and check the model's options.

    A run that is resumed or evaluated later must depend neither on later defaults nor on
    the current folder, so paths become absolute.

    Raises:
        ConfigError: An unknown name, an option that the model does not have, or a wrong rho
            or blocks.
    """
    from rfkeras.synthesis.generate import DEFAULT_SIZE

    info = zoo.model_info(config.model)
    known = info.options
    given = config.model_options()
    for name in given:
        if name not in known:
            raise ConfigError(unknown_name(f"option of {config.model}", name, known))
    filled = {
        name: known[name] for name in config.model_option_names() if name in known
    } | given
    if info.plan is not None:
        info.plan_for(**given)  # raises an error for an impossible receptive field
    if config.dataset == "gm_instruments" and config.dataset_size is None:
        filled["dataset_size"] = DEFAULT_SIZE
    if config.data_dir is not None and not is_remote(config.data_dir):
        filled["data_dir"] = os.path.realpath(config.data_dir)
    if config.audio_dir is not None and not is_remote(config.audio_dir):
        filled["audio_dir"] = os.path.realpath(config.audio_dir)
    if config.sound_font is not None:
        from rfkeras.synthesis.render import parse_sound_fonts

        filled["sound_font"] = os.pathsep.join(map(str, parse_sound_fonts(config.sound_font)))
    if config.init_weights is not None:
        filled["init_weights"] = full_name(config.init_weights, config.model)
    if config.optimizer == "adamw" and config.weight_decay is None:
        filled["weight_decay"] = WEIGHT_DECAY
    if config.averaging == "swa":
        filled["swa_start_epoch"] = config.first_averaged_epoch
    filled["hold_epochs"] = config.hold_until_epoch
    filled["decay_end_epoch"] = config.decay_until_epoch
    if config.prunes:
        filled["prune_epochs"] = config.prune_until_epoch
    return replace(config, **filled)
