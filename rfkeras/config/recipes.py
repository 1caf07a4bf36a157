"""Recipes: YAML tables of options, which may build on one another.

A recipe names another one under `extends` and then writes only what differs. Where a flag
takes a recipe it takes the path of a YAML file or the name of one in zoo/recipes.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.config.options import ModelOptions
from rfkeras.config.train_config import WEIGHT_DECAY, TrainConfig, from_json
from rfkeras.errors import CheckpointError, ConfigError, unknown_name
from rfkeras.utils.files import MAX_OPTIONS_BYTES, malformed, read_text

if TYPE_CHECKING:
    from zoo.pretrained import ReadyWeights

EXTENDS = "extends"
# What belongs to one data set and says nothing of another.
DATA_SET_OPTIONS = (
    "data_dir",
    "audio_dir",
    "subset",
    "fold",
    "dataset_size",
    "sound_font",
    "test_share",
    "allow_absolute",
)

_LONGEST_PATH = 4096

Recipe = tuple[str, dict[str, Any]]  # where it stands, and its options


def list_recipes() -> dict[str, Path]:
    """Recipes that come with the library, by name."""
    from zoo import RECIPES

    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """The file of a recipe.

    Args:
        name: Path of a file, or name of a recipe of the library.
        beside: Folder that relative paths start from; None: the current one.

    Raises:
        ConfigError: There is neither such a file nor such a name.
    """
    path = Path(name) if beside is None else beside / name
    if len(name) < _LONGEST_PATH and path.is_file():
        return path
    known = list_recipes()
    if name not in known:
        raise ConfigError(f"No recipe file {path}, and {unknown_name('recipe', name, known)}")
    return known[name]


def read_recipe(name: str) -> list[Recipe]:
    """A recipe and those it extends, the most basic first, so that later ones win.

    Raises:
        ConfigError: A file is missing, is no table of options, or extends itself.
    """
    chain: list[Recipe] = []
    seen: list[Path] = []
    path = find_recipe(name)
    while True:
        if path.resolve() in seen:
            raise ConfigError(f"Recipe {path} extends itself, by way of others or directly.")
        seen.append(path.resolve())
        options = read_yaml(path)
        base = options.pop(EXTENDS, None)
        chain.append((str(path), options))
        if base is None:
            return chain[::-1]
        if not isinstance(base, str):
            raise ConfigError(f"{path}: {EXTENDS} must name a recipe. Received: {base!r}.")
        path = find_recipe(base, beside=path.parent)


def adapt_recipe(chain: list[Recipe], flags: Mapping[str, Any]) -> list[Recipe]:
    """Leave out what recipes say of another data set or model than the flags name.

    Where a flag names another data set than the recipe, the recipe's subset, fold and
    folders are those of its own data set; where it names another model, options that this
    model has not are those of the recipe's own. A recipe that names no model speaks of the
    default one.

    Args:
        chain: As `read_recipe` returns it.
        flags: Options of the command line, which win over the recipe.

    Raises:
        ConfigError: The flags name an unknown model.
    """
    import zoo

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


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML table.

    Raises:
        ConfigError: The file is missing, is no YAML, or is not a table of options.
    """
    import yaml

    try:
        with malformed():
            loaded = yaml.safe_load(read_text(path, MAX_OPTIONS_BYTES))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"Recipe {path} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"Recipe {path} must be a table of options (key: value).")
    return loaded


def recipes_for(flags: dict[str, Any], recipe: str | None) -> list[Recipe]:
    """Recipes that apply, the stronger last: the named one, else the data set's own.

    They are without what belongs to another data set or model than the flags name. The
    weakest of all is what the weights to start from say of their network.
    """

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
    from rfkeras.datasets.packed import is_remote
    from rfkeras.errors import unknown_name
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
    info.plan_for(**given)  # refuses a receptive field that cannot be
    if config.dataset == "gm_instruments" and config.dataset_size is None:
        filled["dataset_size"] = DEFAULT_SIZE
    if config.data_dir is not None and not is_remote(config.data_dir):
        filled["data_dir"] = os.path.realpath(config.data_dir)
    if config.audio_dir is not None:
        filled["audio_dir"] = os.path.realpath(config.audio_dir)
    if config.sound_font is not None:
        from rfkeras.synthesis import render

        filled["sound_font"] = os.pathsep.join(map(str, render.paths_in(config.sound_font)))
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


CONFIG_FILE, MODEL_FILE = "config.json", "model.keras"
INPUT_OPTIONS = ("frontend", "fixed_floor", "input_channels")
_NETWORK = (*ModelOptions.model_option_names(), *INPUT_OPTIONS)


def full_name(weights: str, model: str) -> str:
    """The weights' absolute path, or "MODEL:WEIGHTS" of ready ones.

    What is neither is left as it is.
    """
    ready = _ready(weights, model)
    if ready is not None:
        return str(ready)
    return str(Path(weights).resolve()) if Path(weights).exists() else weights


def file_of(weights: str, model: str) -> Path:
    """The file with these weights.

    Raises:
        ConfigError: There is neither such a file nor such a name.
        CheckpointError: It is missing or damaged.
    """
    ready = _ready(weights, model)
    if ready is not None:
        return ready.path()
    path = Path(weights)
    if path.is_dir():
        path /= MODEL_FILE
    if not path.is_file():
        from zoo import list_weights

        raise ConfigError(
            f"init_weights: there is no file {path}, and no ready weights of that name. Ready "
            f"are: {', '.join(list_weights()) or 'none'}. Received: {weights!r}."
        )
    return path


def options_of(weights: str, model: str) -> dict[str, Any]:
    """Options of the training that the weights tell, none where they tell nothing.

    Ready weights and the model of a run tell all; a .keras file elsewhere tells its model
    and front-end; a PyTorch checkpoint tells nothing.

    Args:
        weights: As of `file_of`.
        model: Name of the model that ready weights are for, unless they tell it.
    """
    ready = _ready(weights, model)
    if ready is not None:
        return {"model": ready.model, **_known(_flat(ready.options))}
    path = file_of(weights, model)
    beside = path.with_name(CONFIG_FILE)
    if path.name == MODEL_FILE and beside.is_file():
        config = from_json(TrainConfig, beside)
        values = {name: getattr(config, name) for name in ("model", *_NETWORK)}
        return _known(values)
    return _told_by(path) if path.suffix == ".keras" else {}


def _ready(weights: str, model: str) -> ReadyWeights | None:
    from zoo.pretrained import find_weights, has_weights

    for owner in (None, model):
        if has_weights(weights, owner):
            return find_weights(weights, owner)
    return None


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are set."""
    names = {field.name for field in fields(TrainConfig)}
    return {name: v for name, v in values.items() if name in names and v is not None}


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `zoo.create_model` as options of a training."""
    values = dict(options)
    frontend = values.pop("frontend", None) or {}
    if frontend:
        values |= {"frontend": frontend["preset"], "fixed_floor": frontend["fixed_floor"]}
    return values


def _told_by(path: Path) -> dict[str, Any]:
    """What a .keras file tells by itself: model and front-end."""
    import zoo
    from rfkeras.frontend import PRESETS

    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        layers = {layer["config"]["name"]: layer["config"] for layer in config["layers"]}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read as a model: {error}") from error
    told: dict[str, Any] = {}
    if config.get("name") in zoo.list_models():
        told["model"] = config["name"]
    own = layers.get("frontend", {})
    for name, preset in PRESETS.items():
        if own and all(own.get(key) == value for key, value in preset.items()):
            told |= {"frontend": name, "fixed_floor": bool(own.get("fixed_floor"))}
    if "waveform" in layers:
        shape = layers["waveform"]["batch_shape"]
        told["input_channels"] = shape[2] if len(shape) == 3 else 1
    return told


def check_agrees(config: TrainConfig) -> None:
    """Refuse options that are not those of the weights that a run starts from.

    Raises:
        ConfigError: One differs; the message tells the weights' value.
        CheckpointError: The weights cannot be read.
    """
    import zoo
    from zoo.transfer import FREE_OPTIONS

    if config.init_weights is None:
        return
    theirs = options_of(config.init_weights, config.model)
    model = theirs.pop("model", config.model)
    if zoo.model_info(model).builder is not zoo.model_info(config.model).builder:
        raise ConfigError(
            f"The weights {config.init_weights} are of a {model}: set model to that. "
            f"Received: model={config.model!r}."
        )
    for name, value in theirs.items():
        given = getattr(config, name)
        if given is not None and name not in FREE_OPTIONS and _plain(given) != _plain(value):
            raise ConfigError(
                f"The weights {config.init_weights} have {name}={value!r}: leave {name} out, "
                f"or train anew. Received: {name}={given!r}."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
