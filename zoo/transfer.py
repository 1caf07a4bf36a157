"""Weights of one model put into another that may have other classes."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.frontend import find_frontend
from rfkeras.layers.head import find_head
from zoo.pretrained import ReadyWeights, check_agree, find_weights, has_weights, list_weights

HEAD_LAYERS = ("classifier_conv", "classifier_bn", "logits")
"""The layers that know the classes."""

_TORCH_CLASSIFIER = "feed_forward.0.weight"  # of a published checkpoint, classes first

# What a layer does in training alone, or before it, or to audio too short for it: weights
# may be used with other values.
_FREE = (
    "name",
    "dtype",
    "trainable",
    "rate",
    "seed",
    "shake",
    "shake_per",
    "initialization",
    "momentum",
    "min_frames",
)


@dataclass(frozen=True)
class Transferred:
    """What became of the weights.

    Attributes:
        fresh: Names of the layers that keep their own, untrained weights.
        has_head: Whether the classes are those of the source, and its classifier was taken.
        has_frontend: Whether mean and deviation of the mel bands were taken.
    """

    fresh: tuple[str, ...]
    has_head: bool
    has_frontend: bool


def transfer(source: keras.Model, model: keras.Model) -> Transferred:
    """Copy the weights of one model into another of the same network.

    The classifier is copied too where both have the same classes: the same names in the
    same order (or as many, where one of them has no names) and the same task. Else it stays
    as it is. The decision thresholds go with it if both pool frames alike.

    Args:
        source: Where the weights are from.
        model: Changed in place, and not at all if an error is raised.

    Raises:
        CheckpointError: The networks differ; the message tells the layer and both values.
    """
    theirs = {layer.name: layer for layer in source.layers}
    own = {layer.name: layer for layer in model.layers}
    has_head = _same_classes(source, model)
    has_frontend = find_frontend(source) is not None and find_frontend(model) is not None
    compared = [name for name in own if name in theirs and name not in HEAD_LAYERS]
    for name in compared:
        _check_config(theirs[name], own[name])
    _check_names(theirs, own)
    fresh: list[str] = []
    pairs: list[tuple[Any, Any]] = []
    for name, layer in own.items():
        weights = _weights_of(theirs.get(name))
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


def load_initial(
    model: keras.Model, path: Path, rebuild: Callable[[int], keras.Model]
) -> Transferred:
    """Give a model the weights of a file, its classifier too if the classes are the same.

    Args:
        model: Changed in place.
        path: A .keras or .weights.h5 file, or a PyTorch checkpoint (.npz, .pth, .pt).
        rebuild: Builds the same network with that many classes.

    Raises:
        CheckpointError: The file cannot be read or does not fit.
    """
    from rfkeras.interop import CHECKPOINT_SUFFIXES
    from zoo.pretrained import load_model

    if path.suffix == ".keras":
        return transfer(load_model(path), model)
    if not path.exists():
        raise CheckpointError(f"There is no weights file {path}.")
    if path.suffix in CHECKPOINT_SUFFIXES:
        return _load_torch(model, path, rebuild)
    if path.suffix != ".h5":
        raise CheckpointError(
            f"{path}: weights files end in .keras, .weights.h5, "
            f"{', '.join(CHECKPOINT_SUFFIXES)}."
        )
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} does not fit model {model.name!r}: {error}") from error
    return Transferred((), has_head=True, has_frontend=find_frontend(model) is not None)


def _load_torch(
    model: keras.Model, path: Path, rebuild: Callable[[int], keras.Model]
) -> Transferred:
    from rfkeras.interop import load_torch_checkpoint
    from rfkeras.interop.torch import read_state

    state = read_state(path)
    classes = model.output_shape[-1]
    theirs = len(state.get(_TORCH_CLASSIFIER, range(classes)))
    fresh: tuple[str, ...] = () if find_frontend(model) is None else ("frontend",)
    if theirs == classes:
        load_torch_checkpoint(model, state)
        return Transferred(fresh, has_head=True, has_frontend=False)
    source = rebuild(theirs)
    load_torch_checkpoint(source, state)
    found = transfer(source, model)
    return Transferred((*fresh, *found.fresh), has_head=False, has_frontend=False)


def _same_classes(source: keras.Model, model: keras.Model) -> bool:
    if source.output_shape[-1] != model.output_shape[-1]:
        return False
    theirs, own = find_head(source), find_head(model)
    if theirs is None or own is None:
        return True
    unnamed = theirs.label_names is None or own.label_names is None
    return own.task == theirs.task and (unnamed or own.label_names == theirs.label_names)


def _weights_of(layer: Any) -> list[Any]:
    return [] if layer is None else list(layer.weights)


def _check_names(theirs: dict[str, Any], own: dict[str, Any]) -> None:
    optional = ("frontend", *HEAD_LAYERS)
    for one, other, where in ((theirs, own, "weights"), (own, theirs, "model")):
        alone = [
            name
            for name, layer in one.items()
            if layer.weights and name not in other and name not in optional
        ]
        if alone:
            raise _misfit(f"layer {alone[0]!r} is in the {where} alone")


def _check_config(theirs: Any, own: Any) -> None:
    """Refuse what shapes alone do not tell, such as another front-end or damping."""
    if type(theirs) is not type(own):
        raise _misfit(
            f"their layer {own.name!r} is a {type(theirs).__name__}, the model's a "
            f"{type(own).__name__}"
        )
    before, now = _fixed(theirs), _fixed(own)
    for key in now:
        if key in before and before[key] != now[key]:
            raise _misfit(
                f"their layer {own.name!r} has {key}={before[key]!r}, the model's "
                f"{key}={now[key]!r}"
            )


def _fixed(layer: Any) -> dict[str, Any]:
    """What a layer's weights were trained with, comparable."""
    config = layer.get_config()
    return {
        key: _plain(value)
        for key, value in config.items()
        if key not in _FREE and "initializer" not in key
    }


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value


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


FREE_OPTIONS = (
    "initialization",
    "allow_rf_change",
    "head",
    "shake_per",
    "dropout",
    "final_dropout",
)
"""Options of a model that its weights do not hang on."""

Tags = tuple[int | None, tuple[str, ...] | None, str | None]


def open_start(
    weights: str | Path, model: str, given: Mapping[str, Any] | None = None
) -> Start:
    """The weights of that name or path.

    Args:
        weights: Name of ready weights of that model, or a path.
        model: Name of the model.
        given: Options that were set, held against those of ready weights. "frontend" is
            compared later, layer by layer.

    Raises:
        ConfigError: An option contradicts ready weights.
        CheckpointError: There is no such file, or it cannot be read.
    """
    path, entry = Path(weights), None
    if isinstance(weights, str) and has_weights(weights, model):
        entry = find_weights(weights, model)
        check_agree(entry, given or {}, (*FREE_OPTIONS, "frontend"))
        path = entry.path()
    elif not path.exists():
        ready = ", ".join(list_weights(f"{model}:*")) or "none"
        raise CheckpointError(
            f"There is no weights file {path}, and no ready weights of that name. Ready "
            f"weights of {model}: {ready}."
        )
    source = None
    if path.suffix == ".keras":
        from zoo.pretrained import load_model

        source = load_model(path)
    return Start(path, source, entry)


@dataclass(frozen=True)
class Start:
    """Weights, opened.

    Attributes:
        path: Their file.
        source: The model of a .keras file.
        entry: Where they are ready weights, what the index says of them.
    """

    path: Path
    source: Any = None
    entry: ReadyWeights | None = None

    def tags(
        self, num_classes: int | None, label_names: tuple[str, ...] | None, task: str | None
    ) -> Tags:
        """Number and names of the tags, and the task: what is not given, of the weights."""
        from rfkeras.layers import find_head

        head = None if self.source is None else find_head(self.source)
        if head is None:
            return num_classes, label_names, task
        count = self.source.output_shape[-1]
        if num_classes in (None, count) and label_names is None:
            num_classes, label_names = count, head.label_names
        return num_classes, label_names, task or head.task

    def options(self) -> dict[str, Any]:
        """Options of the model with which the weights were trained, as far as known."""
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
        """Give the model the weights, and say which of its layers have none.

        Args:
            model: Changed in place.
            rebuild: Builds the same network with that many classes.

        Raises:
            ConfigError: An option contradicts ready weights.
            CheckpointError: The file cannot be read or does not fit.
        """

        try:
            if self.source is None:
                found = load_initial(model, self.path, rebuild)
            else:
                found = transfer(self.source, model)
        except CheckpointError as error:
            if self.entry is None:
                raise
            raise ConfigError(f"{self.entry}: {error}") from error  # the file is known good
        fresh = [name for name in found.fresh if name != "frontend"]
        if fresh:
            print(
                f"Note on {model.name}: {', '.join(fresh)} have no weights in "
                f"{self.entry or self.path} and are to be trained.",
                file=sys.stderr,
            )
