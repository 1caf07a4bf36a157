"""Initial weights: find them, infer the options they imply, copy them into a model.

`zoo.create_model(weights=...)` and `train.py --init-weights` both use this module. It knows no
configuration of a run, so the functions for `train.py` are given what they need from it.

Importing this module does not import a framework.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.errors import CheckpointError, ConfigError
from zoo.pretrained import (
    CONFIG_FILE,
    MODEL_FILE,
    PretrainedWeights,
    check_finite,
    find_weights,
    hub_model,
    is_on_hub,
    list_weights,
    load_model,
)

if TYPE_CHECKING:
    import keras

HEAD_LAYERS = ("classifier_conv", "classifier_bn", "logits")
"""The layers that depend on the tags."""

FREE_OPTIONS = (
    "initialization",
    "allow_rf_change",
    "head",
    "shake_per",
    "dropout",
    "final_dropout",
)
"""Options of a model that do not affect its weights."""

# Settings of a layer that only matter for initialisation, training or audio that is too short.
# (Not the same as FREE_OPTIONS: `shake` decides a model's branches, but not a built layer's.)
_FREE_SETTINGS = (
    "name",
    "dtype",
    "trainable",
    "trainable_parts",
    "rate",
    "seed",
    "shake",
    "shake_per",
    "initialization",
    "momentum",
    "min_frames",
)

_TORCH_CLASSIFIER = "feed_forward.0.weight"  # in a published checkpoint, classes first

Tags = tuple[int | None, tuple[str, ...] | None, str | None]


# Which weights


def find_pretrained(weights: str | Path, model: str) -> PretrainedWeights | None:
    """Return the pretrained weights with a name; None if there are none.

    Args:
        weights: "MODEL:WEIGHTS", "MODEL" or "WEIGHTS". A path is none of these.
        model: Model that "WEIGHTS" refers to.
    """
    if isinstance(weights, Path):
        return None
    for owner in (None, model):
        try:
            return find_weights(weights, owner)
        except ConfigError:
            continue
    return None


def full_name(weights: str, model: str) -> str:
    """Return "MODEL:WEIGHTS" for pretrained weights, an absolute path for a file.

    A name that is neither is returned unchanged.
    """
    entry = find_pretrained(weights, model)
    if entry is not None:
        return str(entry)
    return str(Path(weights).resolve()) if Path(weights).exists() else weights


def weights_file(weights: str | Path, model: str) -> Path:
    """Return the file with these weights.

    Args:
        weights: Name of pretrained weights, a run folder, a file or an hf:// address.
        model: Name of the model, for pretrained weights that are named without theirs.

    Raises:
        CheckpointError: There is no such file and no such name, or the file is damaged.
    """
    entry = find_pretrained(weights, model)
    if entry is not None:
        return entry.path()
    if is_on_hub(weights):
        return hub_model(str(weights))
    path = Path(weights)
    if path.is_dir():
        path /= MODEL_FILE
    if not path.is_file():
        raise CheckpointError(
            f"There is no weights file {path}, and no pretrained weights have this name. "
            f"Pretrained weights: {', '.join(list_weights()) or 'none'}. "
            f"Received: {str(weights)!r}."
        )
    return path


# Which options they imply


def options_of_weights(
    weights: str,
    model: str,
    *,
    known_models: Collection[str],
    read_run: Callable[[Path], Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the options of a training run that weights imply.

    Pretrained weights and the model of a run imply all options of the network, other .keras
    files only the model's name and the front-end, PyTorch checkpoints none.

    Args:
        weights: As in `weights_file`.
        model: As in `weights_file`.
        known_models: Names of the zoo.
        read_run: Returns the options of the network from the config.json of a run.

    Raises:
        CheckpointError: There are no such weights, or they cannot be read.
    """
    entry = find_pretrained(weights, model)
    if entry is not None:
        options: Mapping[str, Any] = {"model": entry.model, **_run_options(entry.options)}
    else:
        path = weights_file(weights, model)
        config = path.with_name(CONFIG_FILE)
        if path.name == MODEL_FILE and config.is_file():
            options = read_run(config)
        elif path.suffix == ".keras":
            options = _options_in_file(path, known_models)
        else:
            options = {}
    return {name: value for name, value in options.items() if value is not None}


def _run_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of `zoo.create_model` as options of a run."""
    values = dict(options)
    frontend = values.pop("frontend", None) or {}
    if frontend:
        values |= {"frontend": frontend["preset"], "fixed_floor": frontend["fixed_floor"]}
    return values


def _options_in_file(path: Path, known_models: Collection[str]) -> dict[str, Any]:
    """Read model and front-end from a .keras file without loading it."""
    from rfkeras.frontend.presets import PRESETS

    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        layers = {layer["config"]["name"]: layer["config"] for layer in config["layers"]}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read as a model: {error}") from error
    options: dict[str, Any] = {}
    if config.get("name") in known_models:
        options["model"] = config["name"]
    frontend = layers.get("frontend", {})
    for name, preset in PRESETS.items():
        if frontend and all(frontend.get(key) == value for key, value in preset.items()):
            options |= {"frontend": name, "fixed_floor": bool(frontend.get("fixed_floor"))}
    if "waveform" in layers:
        shape = layers["waveform"]["batch_shape"]
        options["input_channels"] = shape[2] if len(shape) == 3 else 1
    return options


def check_options(
    weights: object, implied: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Reject options of a network that its weights were not trained with.

    Args:
        weights: Name of the weights, for the message.
        implied: Options of the weights.
        given: Options that were set. Those that do not affect weights may differ.

    Raises:
        ConfigError: An option differs; the message shows the weights' value.
    """
    for name, value in given.items():
        if name in FREE_OPTIONS or name not in implied:
            continue
        if _as_lists(value) != _as_lists(implied[name]):
            raise ConfigError(
                f"The weights {weights} have {name}={implied[name]!r}. Leave out {name}, or "
                f"train from scratch. Received: {name}={value!r}."
            )


def _as_lists(value: Any) -> Any:
    """Return a value with its tuples as lists, as JSON would store it."""
    return [_as_lists(each) for each in value] if isinstance(value, tuple | list) else value


# Into a model


@dataclass(frozen=True)
class Transferred:
    """The parts that were copied from the weights.

    Attributes:
        fresh: Names of the layers that keep their own, untrained weights.
        has_head: Whether the classifier was copied, because the classes are the same.
        has_frontend: Whether mean and deviation of the mel bands were copied.
    """

    fresh: tuple[str, ...]
    has_head: bool
    has_frontend: bool


@dataclass(frozen=True)
class InitialWeights:
    """Opened weights that `zoo.create_model` starts from.

    Attributes:
        path: File of the weights.
        source: Model in a .keras file; None for other files.
        entry: Entry of the index for pretrained weights; None for other files.
    """

    path: Path
    source: Any = None
    entry: PretrainedWeights | None = None

    @classmethod
    def open(cls, weights: str | Path, model: str, given: Mapping[str, Any]) -> InitialWeights:
        """Find and read weights.

        Args:
            weights: As in `weights_file`.
            model: Name of the model.
            given: Options that were set, compared with those of pretrained weights. "frontend"
                is compared later, layer by layer.

        Raises:
            ConfigError: An option contradicts pretrained weights.
            CheckpointError: There are no such weights, or they cannot be read.
        """
        entry = find_pretrained(weights, model)
        if entry is not None:
            network = {name: value for name, value in given.items() if name != "frontend"}
            check_options(entry, entry.options, network)
        path = weights_file(weights, model)
        return cls(path, load_model(path) if path.suffix == ".keras" else None, entry)

    def tags(
        self, num_classes: int | None, label_names: tuple[str, ...] | None, task: str | None
    ) -> Tags:
        """Return number and names of the tags, and the task; fill in those of the weights."""
        from rfkeras.layers.head import find_head

        head = None if self.source is None else find_head(self.source)
        if head is None:
            return num_classes, label_names, task
        count = self.source.output_shape[-1]
        if num_classes in (None, count) and label_names is None:
            num_classes, label_names = count, head.label_names
        return num_classes, label_names, task or head.task

    def options(self) -> dict[str, Any]:
        """Return the options of `zoo.create_model` that the weights imply, if known."""
        options: dict[str, Any] = {}
        if self.entry is not None:
            options = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in self.entry.options.items()
                if name != "frontend"
            }
        if self.source is None:
            return options
        from rfkeras.frontend import find_frontend

        frontend = find_frontend(self.source)
        if frontend is not None:
            options["frontend"] = type(frontend).from_config(frontend.get_config())
        return options

    def load_into(self, model: Any, rebuild: Callable[[int], Any]) -> None:
        """Copy the weights into a model; list its untrained layers on standard error.

        Args:
            model: Changed in place.
            rebuild: Builds the same network with a given number of classes.

        Raises:
            ConfigError: An option contradicts pretrained weights.
            CheckpointError: The file cannot be read or does not fit the model.
        """
        try:
            if self.source is None:
                transferred = load_weights(model, self.path, rebuild)
            else:
                transferred = transfer(self.source, model)
        except CheckpointError as error:
            if self.entry is None:
                raise
            # The file is known to be good, so the options must be wrong.
            raise ConfigError(f"{self.entry}: {error}") from error
        fresh = [name for name in transferred.fresh if name != "frontend"]
        if fresh:
            print(
                f"Note: {model.name} has untrained layers, which {self.entry or self.path} "
                f"does not contain: {', '.join(fresh)}.",
                file=sys.stderr,
            )


def load_weights(
    model: keras.Model, path: Path, rebuild: Callable[[int], keras.Model]
) -> Transferred:
    """Load a file into a model; the classifier only if the classes are the same.

    Args:
        model: Changed in place.
        path: A .keras or .weights.h5 file, or a PyTorch checkpoint (.npz, .pth, .pt).
        rebuild: Builds the same network with a given number of classes.

    Raises:
        CheckpointError: The file cannot be read or does not fit the model.
    """
    from rfkeras.frontend import find_frontend
    from rfkeras.interop import CHECKPOINT_SUFFIXES

    if path.suffix == ".keras":
        return transfer(load_model(path), model)
    if not path.exists():
        raise CheckpointError(f"There is no weights file {path}.")
    if path.suffix in CHECKPOINT_SUFFIXES:
        loaded = _load_torch(model, path, rebuild)
        check_finite(model, path)
        return loaded
    if path.suffix != ".h5":
        raise CheckpointError(
            f"{path}: a weights file must end in .keras, .weights.h5, "
            f"{', '.join(CHECKPOINT_SUFFIXES)}."
        )
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} does not fit model {model.name!r}: {error}") from error
    check_finite(model, path)
    return Transferred((), has_head=True, has_frontend=find_frontend(model) is not None)


def _load_torch(
    model: keras.Model, path: Path, rebuild: Callable[[int], keras.Model]
) -> Transferred:
    from rfkeras.frontend import find_frontend
    from rfkeras.interop.torch import load_torch_checkpoint, read_state

    state = read_state(path)
    classes = model.output_shape[-1]
    theirs = len(state.get(_TORCH_CLASSIFIER, range(classes)))
    fresh: tuple[str, ...] = () if find_frontend(model) is None else ("frontend",)
    if theirs == classes:
        load_torch_checkpoint(model, state)
        return Transferred(fresh, has_head=True, has_frontend=False)
    source = rebuild(theirs)
    load_torch_checkpoint(source, state)
    transferred = transfer(source, model)
    return Transferred((*fresh, *transferred.fresh), has_head=False, has_frontend=False)


def transfer(source: keras.Model, model: keras.Model) -> Transferred:
    """Copy the weights of one model into another with the same network.

    The classifier is only copied if both models have the same classes: the same names in the
    same order (or the same number, if one of them has no names) and the same task. The decision
    thresholds are copied with it if both models pool frames alike.

    Args:
        source: Model to copy from.
        model: Model to copy into. It is unchanged if an error is raised.

    Raises:
        CheckpointError: The networks differ; the message names the layer and both values.
    """
    from rfkeras.frontend import find_frontend
    from rfkeras.layers.head import find_head

    theirs = {layer.name: layer for layer in source.layers}
    own = {layer.name: layer for layer in model.layers}
    has_head = _have_same_classes(source, model)
    has_frontend = find_frontend(source) is not None and find_frontend(model) is not None
    compared = [name for name in own if name in theirs and name not in HEAD_LAYERS]
    for name in compared:
        _check_settings(theirs[name], own[name])
    _check_names(theirs, own)
    fresh: list[str] = []
    pairs: list[tuple[Any, Any]] = []
    for name, layer in own.items():
        weights = list(theirs[name].weights) if name in theirs else []
        wanted = layer.weights
        if name in HEAD_LAYERS and (not has_head or len(weights) != len(wanted)):
            weights = []
        if wanted and not weights:
            fresh.append(name)
            continue
        _check_shapes(layer, wanted, weights)
        pairs.extend(zip(wanted, weights, strict=True))
    for variable, value in pairs:
        variable.assign(value.numpy())
    ours, other = find_head(model), find_head(source)
    if has_head and ours is not None and other is not None and ours.pooling == other.pooling:
        ours.thresholds = other.thresholds
    return Transferred(tuple(fresh), has_head, has_frontend)


def _have_same_classes(source: keras.Model, model: keras.Model) -> bool:
    from rfkeras.layers.head import find_head

    if source.output_shape[-1] != model.output_shape[-1]:
        return False
    theirs, own = find_head(source), find_head(model)
    if theirs is None or own is None:
        return True
    unnamed = theirs.label_names is None or own.label_names is None
    return own.task == theirs.task and (unnamed or own.label_names == theirs.label_names)


def _check_names(theirs: dict[str, Any], own: dict[str, Any]) -> None:
    optional = ("frontend", *HEAD_LAYERS)
    for one, other, where in ((theirs, own, "weights"), (own, theirs, "model")):
        unmatched = [
            name
            for name, layer in one.items()
            if layer.weights and name not in other and name not in optional
        ]
        if unmatched:
            raise _misfit(f"layer {unmatched[0]!r} is only in the {where}")


def _check_settings(theirs: Any, own: Any) -> None:
    """Reject differences that shapes do not show, such as another front-end or damping."""
    if type(theirs) is not type(own):
        raise _misfit(
            f"their layer {own.name!r} is a {type(theirs).__name__}, the model's a "
            f"{type(own).__name__}"
        )
    before, now = _fixed_settings(theirs), _fixed_settings(own)
    for key in now:
        if key in before and before[key] != now[key]:
            raise _misfit(
                f"their layer {own.name!r} has {key}={before[key]!r}, the model's "
                f"{key}={now[key]!r}"
            )


def _fixed_settings(layer: Any) -> dict[str, Any]:
    """Return the settings of a layer that its weights depend on."""
    return {
        key: _as_lists(value)
        for key, value in layer.get_config().items()
        if key not in _FREE_SETTINGS and "initializer" not in key
    }


def _check_shapes(layer: Any, wanted: list[Any], weights: list[Any]) -> None:
    shapes = [tuple(v.shape) for v in wanted], [tuple(v.shape) for v in weights]
    if shapes[0] != shapes[1]:
        raise _misfit(
            f"their layer {layer.name!r} has the shapes {shapes[1]}, the model's {shapes[0]}"
        )


def _misfit(difference: str) -> CheckpointError:
    return CheckpointError(
        f"The weights do not fit the model: {difference}. Build the model with the options "
        "that the weights were trained with."
    )
