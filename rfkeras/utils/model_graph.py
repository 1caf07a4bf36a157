"""Look into Keras models: their sublayers, their graph of layers, and nested models.

One search for all rooms, so that a front-end or a head is found in the same places everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.utils.keras_workarounds import graph_nodes, sequential_graph

Kind = TypeVar("Kind", bound=keras.layers.Layer)


def sublayers(model: Any, kind: type[Kind]) -> list[Kind]:
    """Return the different layers of a class in a model, at any depth.

    They are found in functional, Sequential and subclassed models, in nested models, in
    wrappers such as `keras.layers.TimeDistributed`, and in layers that hold them as attributes.
    """
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


def layer_graph(model: Any) -> Any:
    """Return the graph of a functional or Sequential model; None if it has none.

    Subclassed models have none, nor have Sequential models that are not built.
    """
    if not isinstance(model, keras.Function | keras.Sequential):
        return None
    bases = type(model).__mro__
    library: Any = next(base for base in bases if base.__module__.startswith("keras."))
    if type(model).call is not library.call:
        return None
    return sequential_graph(model) if isinstance(model, keras.Sequential) else model


def inlined(model: Any) -> Any:
    """Return a model in which the layers of nested models are layers of the model itself.

    Args:
        model: Any Keras model.

    Returns:
        The graph of the model if it contains no functional or Sequential model; otherwise a
        functional model with the same layers, weights and inputs. A model without a graph of
        layers is returned as it is.

    Raises:
        ConfigError: Two layers in different nested models have the same name.
    """
    graph = layer_graph(model)
    if graph is None:
        return model
    if all(layer_graph(node.operation) is None for node in graph_nodes(graph)):
        return graph
    tensors = {id(tensor): tensor for tensor in graph.inputs}
    _apply(graph, tensors, None)
    outputs = keras.tree.map_structure(lambda tensor: tensors[id(tensor)], graph.output)
    try:
        return keras.Model(graph.input, outputs, name=model.name)
    except ValueError as error:
        raise ConfigError(
            f"The layers of model {model.name!r} and of the models nested in it need "
            f"different names: {error}"
        ) from error


def _apply(graph: Any, tensors: dict[int, Any], training: bool | None) -> None:
    """Apply the layers of a graph, and those of nested models, to symbolic tensors.

    Args:
        graph: A functional model.
        tensors: The new tensor for each tensor of the graph, by its id. Holds the inputs, and
            receives everything else.
        training: The argument with which the graph is called, if any.
    """
    for node in graph_nodes(graph):
        if node.is_input or any(id(x) not in tensors for x in node.input_tensors):
            continue
        args, kwargs = node.arguments.fill_in(tensors)
        nested = layer_graph(node.operation)
        mode = kwargs.get("training")
        mode = training if mode is None else mode
        if nested is None:
            if mode is not None and getattr(node.operation, "_call_has_training_arg", False):
                kwargs["training"] = mode
            outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        else:
            inside = dict(
                zip(
                    map(id, nested.inputs),
                    [tensors[id(x)] for x in node.input_tensors],
                    strict=True,
                )
            )
            _apply(nested, inside, mode)
            outputs = [inside[id(tensor)] for tensor in nested.outputs]
        for tensor, new in zip(node.outputs, outputs, strict=True):
            tensors[id(tensor)] = new


def part_of_model(start: Any, end: Any, name: str | None = None) -> Any:
    """Return the layers between two tensors of a functional model as a model.

    Args:
        start: The only tensor that the layers may read.
        end: The output.
        name: Name of the new model.

    Raises:
        ValueError: The end also depends on tensors before the start, or not on the start.
    """
    part = keras.Model(start, end, name=name)
    known = set(map(id, part.inputs))
    for node in graph_nodes(part):
        # Keras itself does not notice if another branch begins at the input of the model.
        if not node.is_input and any(id(tensor) not in known for tensor in node.input_tensors):
            raise ValueError(
                f"layer {node.operation.name!r} also depends on what is before "
                f"{start._keras_history.operation.name!r}"
            )
        if not node.is_input:
            known.update(map(id, node.outputs))
    return part


def layer_tensor(graph: Any, layer: Any, side: str) -> Any:
    """Return the input or output of a layer of a model that is applied once.

    A layer can belong to several models, so `layer.output` can be another model's tensor.

    Args:
        graph: A functional model, such as `inlined` returns.
        layer: The layer, or its name.
        side: "input" or "output".

    Raises:
        ConfigError: The layer is no layer of the model itself, or does not have a single
            tensor on this side.
    """
    name = layer if isinstance(layer, str) else layer.name
    nodes = [
        node
        for node in graph_nodes(graph)
        if (node.operation.name == name if isinstance(layer, str) else node.operation is layer)
    ]
    if not nodes and isinstance(layer, str):
        names = {node.operation.name for node in graph_nodes(graph)}
        raise ConfigError(unknown_name(f"layer of model {graph.name!r}", layer, names))
    if not nodes:
        raise ConfigError(
            f"Layer {name!r} is inside another layer of model {graph.name!r}, or not in it at "
            "all. Apply it in the model itself: rfkeras then knows its input and output."
        )
    tensors = [
        tensor
        for node in nodes
        for tensor in (node.input_tensors if side == "input" else node.outputs)
    ]
    if len(tensors) != 1:
        raise ConfigError(
            f"Layer {name!r} of model {graph.name!r} must have a single {side}. Received: a "
            f"layer with {len(tensors)}."
        )
    return tensors[0]


class Place:
    """A symbolic tensor of a model, seen from outside through nested models.

    Args:
        tensor: The tensor.
        outer: For the tensors of a nested model: which tensors stand for its inputs.
    """

    def __init__(self, tensor: Any, outer: Mapping[int, Place] | None = None) -> None:
        self.tensor = tensor
        self._outer = {} if outer is None else outer

    @property
    def key(self) -> tuple[int, int]:
        """What identifies the place during one walk."""
        return id(self.tensor), id(self._outer)

    def producer(self) -> tuple[Any, list[Place]]:
        """Return the layer or operation that computes the tensor, and what it reads.

        Nested models are entered: the layer is never a functional or Sequential model.
        """
        place = self
        while True:
            known = place._outer.get(id(place.tensor))
            if known is not None:
                place = known
                continue
            operation, node_index, tensor_index = place.tensor._keras_history
            node = operation._inbound_nodes[node_index]
            reads = [Place(tensor, place._outer) for tensor in node.input_tensors]
            nested = layer_graph(operation)
            if nested is None:
                return operation, reads
            outer = dict(zip(map(id, nested.inputs), reads, strict=True))
            place = Place(nested.outputs[tensor_index], outer)


def chain_from_end(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (layer, its input tensor) from the output back, while each has one input.

    Raises:
        ConfigError: The model has several outputs, or no graph of layers.
    """
    place = Place(only_output(model))
    while True:
        layer, reads = place.producer()
        if len(reads) != 1:
            return
        yield layer, reads[0].tensor
        place = reads[0]


def only_input(model: Any) -> Any:
    """Return the input tensor of a model that has one.

    Raises:
        ConfigError: It has several inputs, or no graph of layers.
    """
    return _only(model, "input")


def only_output(model: Any) -> Any:
    """Return the output tensor of a model that has one.

    Raises:
        ConfigError: It has several outputs, or no graph of layers.
    """
    return _only(model, "output")


def _only(model: Any, side: str) -> Any:
    graph = layer_graph(model)
    if graph is None:
        raise ConfigError(
            f"Model {getattr(model, 'name', model)!r} has no graph of layers: it is a "
            "subclassed model, or not built. Build it as keras.Model(inputs, outputs)."
        )
    tensors = graph.inputs if side == "input" else graph.outputs
    if len(tensors) != 1:
        names = ", ".join(str(getattr(tensor, "name", "")) for tensor in tensors)
        raise ConfigError(
            f"Model {model.name!r} must have one {side}. Received: {len(tensors)} {side}s "
            f"({names}). Make a model with the {side} you need: keras.Model(inputs, outputs)."
        )
    return tensors[0]


def first_not_finite(variables: Iterable[Any]) -> str | None:
    """Return the path of the first variable that contains NaN or infinity; None if none does.

    Each variable is reduced on its device, and the results are fetched together.

    Args:
        variables: Keras variables. Those that are not floating-point are skipped.
    """
    floats = [v for v in variables if keras.backend.is_float_dtype(v.dtype)]
    if not floats:
        return None
    finite = ops.convert_to_numpy(ops.stack([ops.all(ops.isfinite(v)) for v in floats]))
    broken = np.flatnonzero(~finite)
    return None if broken.size == 0 else str(floats[broken[0]].path)
