"""Where a model is cut: at its spectrogram, and at the map that is measured."""

from __future__ import annotations

from typing import Any

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.receptive_field.arithmetic import AxisField
from rfkeras.receptive_field.effective.split import Split
from rfkeras.receptive_field.units import SpectrogramScale


def split_model(model: Any, layer: str | None, spectrogram_layer: str | None) -> Split:
    """Cut a model.

    Args:
        model: Functional or Sequential, with one input.
        layer: Whose output is the map; None: the one that is averaged over all positions,
            or the model's output where that is a map.
        spectrogram_layer: Whose output is the spectrogram; None: the front-end, or the
            model's input.

    Raises:
        ConfigError: The model cannot be cut there, or has more inputs than one.
    """
    import keras

    from rfkeras.receptive_field.walk import graph_of

    if keras.config.backend() != "tensorflow":
        raise ConfigError(
            "The effective receptive field is measured on Keras' TensorFlow backend. "
            f"Received: the backend {keras.config.backend()!r}."
        )
    graph = graph_of(model)
    if len(graph.inputs) != 1:
        raise ConfigError(
            "The effective receptive field is measured for models with one input. "
            f"Received: model {model.name!r} with {len(graph.inputs)} inputs."
        )
    start = spectrogram_layer or _frontend(model)
    spectrogram = graph.inputs[0] if start is None else _tensor(graph, start, "output")
    names: tuple[str, ...] | None = None
    if layer is None:
        output, names = _averaged_map(model, graph)
    else:
        output = _tensor(graph, layer, "output")
    for tensor, option, what in (
        (spectrogram, "spectrogram_layer", "spectrogram (batch, time, mel, channels)"),
        (output, "layer", "map (batch, time, frequency, channels)"),
    ):
        if len(tensor.shape) not in (3, 4):
            raise ConfigError(
                f"Model {model.name!r} must have a {what}: by `{option}` name the layer "
                f"whose output is one. Received: one of shape {tuple(tensor.shape)}."
            )
    try:
        body = keras.Model(spectrogram, output)
        front = None if start is None else keras.Model(graph.inputs[0], spectrogram)
    except ValueError as error:
        raise ConfigError(
            f"In model {model.name!r} the map does not follow from the spectrogram alone: "
            f"{error}"
        ) from error
    scale = None if start is None else _scale(model, start)
    return Split(model, front, body, names, scale)


def _frontend(model: Any) -> str | None:
    """Name of the model's front-end; None where it has none.

    Raises:
        ConfigError: It is hidden in a model within.
    """
    import keras

    if len(model.inputs[0].shape) == 4:  # a spectrogram: kapre need not be loaded
        return None
    from rfkeras.frontend import find_frontend

    frontend = find_frontend(model)
    if frontend is not None:
        return str(frontend.name)
    for layer in model.layers:
        if isinstance(layer, keras.Model) and find_frontend(layer) is not None:
            raise ConfigError(
                f"The front-end of model {model.name!r} is inside of its layer "
                f"{layer.name!r}. Measure that model: model.get_layer({layer.name!r})."
            )
    return None


def _averaged_map(model: Any, graph: Any) -> tuple[Any, tuple[str, ...] | None]:
    """The map that the model averages over its positions, and the names of its channels."""
    from rfkeras.layers.head import ClipLogits, find_head
    from rfkeras.receptive_field.model import receptive_field

    for layer in model.layers:
        if isinstance(layer, ClipLogits):
            return _tensor(graph, layer.name, "input"), layer.label_names
    if find_head(model) is not None:
        raise ConfigError(
            f"The map that model {model.name!r} averages is inside of a model within it. "
            "Measure that model, or name a layer of this one by `layer`."
        )
    pooled_by = receptive_field(model).pooled_by
    if pooled_by is None:
        return graph.outputs[0], None
    return _tensor(graph, pooled_by, "input"), None


def _tensor(graph: Any, name: str, side: str) -> Any:
    """The input or output of a layer, or another operation, that is applied once.

    Layers may belong to several models, so that `layer.input` may be another model's.
    """
    applied: dict[str, list[Any]] = {}
    for nodes in graph._nodes_by_depth.values():
        for node in nodes:
            applied.setdefault(node.operation.name, []).append(node)
    if name not in applied:
        raise ConfigError(unknown_name(f"layer of model {graph.name!r}", name, applied))
    tensors = [
        tensor
        for node in applied[name]
        for tensor in (node.input_tensors if side == "input" else node.outputs)
    ]
    if len(tensors) != 1:
        raise ConfigError(
            f"Layer {name!r} of model {graph.name!r} has {len(tensors)} {side}s: choose a "
            "layer with one."
        )
    return tensors[0]


def _scale(model: Any, spectrogram_layer: str) -> SpectrogramScale | None:
    """The units of that layer's output, where its pixels are those of a spectrogram."""
    from rfkeras.receptive_field.model import receptive_field

    field = receptive_field(model, layer=spectrogram_layer)
    pixels = field.time == field.frequency == AxisField()
    return field.scale if pixels else None
