"""The shortest input that a model can compute, from the shapes of its layers."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import keras

from rfkeras.errors import ConfigError
from rfkeras.utils.keras_workarounds import graph_nodes
from rfkeras.utils.model_graph import layer_graph, only_input

LONGEST = 2**31  # longest input tried, in samples or frames


def shortest_input(model: Any) -> int:
    """Return the shortest input, in samples or frames, that a model can compute.

    Convolutions and pooling with padding="valid" need at least one window. The length follows
    from the shapes of all layers; nothing is computed. A front-end pads short audio, so a model
    that pads or strides with padding="same" after it takes a single sample.

    Args:
        model: Functional or built Sequential model with one input, (batch, samples, ...) or
            (batch, frames, ...).

    Returns:
        The length. For a model with a fixed input length, that length.

    Raises:
        ConfigError: The model has several inputs or no graph of layers, or there is no such
            length.
    """
    tensor = only_input(model)
    if len(tensor.shape) < 2:
        raise ConfigError(
            f"Model {model.name!r} needs an input (batch, time, ...). Received: shape "
            f"{tuple(tensor.shape)}."
        )
    fixed = tensor.shape[1]
    if fixed is not None:
        return int(fixed)
    longest = 1
    problem = length_problem(model, longest)
    while problem is not None:
        longest *= 2
        if longest > LONGEST:
            raise ConfigError(
                f"No input is long enough for model {model.name!r}, or it takes only certain "
                f"lengths. At {LONGEST:,} positions: {problem}"
            )
        problem = length_problem(model, longest)
    lengths = range(longest // 2 + 1, longest + 1)
    if len(lengths) < 2:
        return longest
    return lengths[bisect_left(lengths, True, key=lambda n: length_problem(model, n) is None)]


def length_problem(model: Any, length: int) -> str | None:
    """Return why a model cannot compute an input of this length; None if it can."""
    tensor = only_input(model)
    shape = (tensor.shape[0] or 1, length, *tensor.shape[2:])
    graph = layer_graph(model)
    spec = keras.KerasTensor(shape, dtype=tensor.dtype)
    try:
        _compute_shapes(graph, [spec])
    except Exception as error:  # noqa: BLE001  layers report impossible shapes in many ways
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _compute_shapes(graph: Any, inputs: list[Any]) -> list[Any]:
    """Return the symbolic outputs of a graph for symbolic inputs.

    Raises:
        ValueError: A layer has no position left.
    """
    known = {id(tensor): spec for tensor, spec in zip(graph.inputs, inputs, strict=True)}
    for node in graph_nodes(graph):
        if node.is_input or any(id(x) not in known for x in node.input_tensors):
            continue
        layer = node.operation
        nested = layer_graph(layer)
        if nested is None:
            args, kwargs = node.arguments.fill_in(known)
            outputs = keras.tree.flatten(layer.compute_output_spec(*args, **kwargs))
        else:
            outputs = _compute_shapes(nested, [known[id(x)] for x in node.input_tensors])
        for tensor, spec in zip(node.outputs, outputs, strict=True):
            if any(size is not None and size < 1 for size in spec.shape):
                raise ValueError(
                    f"Layer {layer.name!r} would compute a map of shape {tuple(spec.shape)}."
                )
            known[id(tensor)] = spec
    return [known[id(tensor)] for tensor in graph.outputs]
