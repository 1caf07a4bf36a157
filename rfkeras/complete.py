"""A run's options written out: the recipes that apply, and all defaults."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from rfkeras.config import WEIGHT_DECAY, TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.recipes import Recipe, adapt_recipe, list_recipes, read_recipe


def recipes_for(flags: dict[str, Any], recipe: str | None) -> list[Recipe]:
    """Recipes that apply, the stronger last: the named one, else the data set's own.

    They are without what belongs to another data set or model than the flags name. The
    weakest of all is what the weights to start from say of their network.
    """
    from rfkeras.initial_weights import options_of

    if recipe is None:
        dataset = flags.get("dataset", TrainConfig.dataset)
        recipe = dataset if dataset in list_recipes() else None
    chain = [] if recipe is None else adapt_recipe(read_recipe(recipe), flags)
    named: dict[str, Any] = {}
    for options in (*(options for _, options in chain), flags):
        named |= {key: options[key] for key in ("init_weights", "model") if key in options}
    weights, model = named.get("init_weights"), named.get("model", TrainConfig.model)
    if weights is None:
        return chain
    return [(str(weights), options_of(str(weights), model)), *chain]


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
    from rfkeras.initial_weights import full_name

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
        filled["data_dir"] = os.path.realpath(config.data_dir)
    if config.audio_dir is not None:
        filled["audio_dir"] = os.path.realpath(config.audio_dir)
    if config.sound_font is not None:
        from rfkeras.data.sources.gm_instruments import soundfont

        filled["sound_font"] = os.pathsep.join(map(str, soundfont.paths_in(config.sound_font)))
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
