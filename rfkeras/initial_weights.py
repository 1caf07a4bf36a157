"""What the weights that a run starts from say of its options.

They decide the network: its options are those of the weights unless they are given, and
options that are given must agree. No framework is imported.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.config import TrainConfig, from_json
from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.options.inputs import ModelOptions

if TYPE_CHECKING:
    from zoo.pretrained import ReadyWeights

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
    from zoo.starting import FREE_OPTIONS

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
