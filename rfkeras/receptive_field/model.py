"""The exact receptive field of any functional or Sequential Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.receptive_field.field import AxisField
from rfkeras.receptive_field.result import ReceptiveField
from rfkeras.receptive_field.states import Along, Source
from rfkeras.receptive_field.tensor import Shape, TensorField


def receptive_field(
    model: Any,
    layer: str | None = None,
    input_shape: Sequence[int | None] | None = None,
    input_name: str | None = None,
) -> ReceptiveField:
    """What each position of a model's output, or of a layer's, sees of the input.

    It follows from the layers alone: kernels, strides, dilation, padding, pooling,
    up-sampling, branches and so on, through models inside of the model, and is exact away
    from the map's ends: the window is the smallest that holds every pixel which the position
    depends on. Where a window reaches beyond the input, the part of it that lies on the
    input holds all that is read there, but with dilation may be larger than that. A layer of
    which it is not known what it reads is an error; see `register_rule`.

    Maps are (batch, time, frequency, channels), or with `data_format="channels_first"`
    (batch, channels, time, frequency), or (batch, time, features), which have a time axis
    only. Where the model computes a spectrogram from waveforms, pixels are the
    spectrogram's.

    Args:
        model: Functional, or a Sequential that is built.
        layer: Name of the layer whose output is meant; of one inside of a model or layer
            inside of it "outer/inner"; of the second call of one called twice "name#2".
            None: the model's output; where that is pooled over all positions, the map that
            is pooled.
        input_shape: Shape of the input without the batch, for lengths that the model leaves
            open. The zero padding of strided layers with padding="same" depends on it. An
            unknown length is taken to be a multiple of their strides, and the layer's row
            says so where it matters.
        input_name: Which input is meant where there are several.

    Returns:
        The receptive field; its `layers` has a row for every layer up to that one.

    Raises:
        ConfigError: The model has no graph of layers, or several outputs or inputs none of
            which was chosen; there is no such layer; a layer is unknown; or maps are
            combined whose positions lie differently far apart.

    Example:
        >>> rf = receptive_field(zoo.create_model("resnet_rf", num_classes=20, rho=7))
        >>> rf.time.size, rf.frequency.size, rf.pooled_by
        (135, 135, 'logits')
        >>> print(rf.table())
    """
    from rfkeras.receptive_field.report import report
    from rfkeras.receptive_field.walk import Reached, Walk, graph_of

    graph = graph_of(model)
    if layer is None and len(graph.outputs) > 1:
        names = [tensor._keras_history.operation.name for tensor in graph.outputs]
        raise ConfigError(
            f"The model has {len(names)} outputs. Choose the layer whose output is meant: "
            f"layer= one of {', '.join(names)}."
        )
    walk = Walk(layer)
    inputs = _inputs(graph, input_shape, input_name)
    try:
        output = walk.through_model(model, inputs, "")
    except Reached:
        output = walk.rows[-1].seen
    else:
        if layer is not None:
            raise ConfigError(unknown_name("layer", layer, [row.name for row in walk.rows]))
    return report(walk.rows, output)


def _inputs(
    graph: Any, input_shape: Sequence[int | None] | None, input_name: str | None
) -> list[TensorField]:
    """What the model's inputs see of themselves: the chosen one each position, others none."""
    names = [tensor.name for tensor in graph.inputs]
    if input_name is None and len(names) > 1:
        raise ConfigError(
            f"The model has {len(names)} inputs. Choose one: input_name= one of "
            f"{', '.join(names)}."
        )
    if input_name is not None and input_name not in names:
        raise ConfigError(unknown_name("input", input_name, names))
    chosen = 0 if input_name is None else names.index(input_name)
    inputs = [TensorField(tuple(tensor.shape), name=tensor.name) for tensor in graph.inputs]
    shape = _completed(inputs[chosen].shape, input_shape)
    rank = len(shape) - 1
    if not 1 <= rank <= 3:
        raise ConfigError(
            "The input must have the shape (batch, time), (batch, time, features) or (batch, "
            f"time, frequency, channels), or that of waveforms. Received: {shape}."
        )
    states = tuple(Along(AxisField(), axis + 1) for axis in range(rank))
    inputs[chosen] = TensorField(
        shape, Source(rank, graph, settled=False), states, names[chosen]
    )
    return inputs


def _completed(shape: Shape, given: Sequence[int | None] | None) -> Shape:
    """The input's shape with the lengths that were given."""
    if given is None:
        return shape
    lengths = tuple(given)
    fits = len(lengths) == len(shape) - 1 and all(
        length is None or (isinstance(length, int) and length > 0 and known in (None, length))
        for known, length in zip(shape[1:], lengths, strict=False)
    )
    if not fits:
        raise ConfigError(
            f"input_shape must fit the model's input {tuple(shape[1:])}, without the batch. "
            f"Received: {lengths}."
        )
    known = (k if n is None else n for k, n in zip(shape[1:], lengths, strict=True))
    return (shape[0], *known)
