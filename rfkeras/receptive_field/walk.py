"""Walks through a Keras model, layer by layer, and keeps what every output sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from rfkeras.errors import ConfigError
from rfkeras.receptive_field import rules  # noqa: F401 (registers the rules for Keras)
from rfkeras.receptive_field.registry import find_rule, full_name, overrides_call
from rfkeras.receptive_field.states import Pooled, Unlimited
from rfkeras.receptive_field.tensor import Shape, TensorField


@dataclass(frozen=True)
class Row:
    """One application of a layer.

    Attributes:
        name: Of the layer; of one inside of another "outer/inner".
        kind: Its class.
        seen: What its (first) output sees.
        outputs: How many outputs it has.
    """

    name: str
    kind: str
    seen: TensorField
    outputs: int


class Reached(Exception):
    """The walk has come to the layer that was asked for."""


class Walk:
    """One walk through a model.

    Args:
        target: Name of the layer at which it ends; None: at the model's output.

    Attributes:
        rows: The layers that were applied, in order.
    """

    def __init__(self, target: str | None = None) -> None:
        self.target = target
        self.rows: list[Row] = []

    def through_model(self, model: Any, inputs: Sequence[TensorField], path: str) -> Any:
        """What the outputs of a model see, in the structure in which it returns them.

        Args:
            model: Functional, or a Sequential that is built.
            inputs: What its inputs see, in order.
            path: Name of the model and a slash; "" for the outermost.
        """
        graph = graph_of(model, path)
        known = {id(tensor): seen for tensor, seen in zip(graph.inputs, inputs, strict=True)}
        nodes = self._nodes(graph, path)
        names = _names(nodes)
        for node in nodes:
            args, kwargs = node.arguments.fill_in(known)
            shapes = tuple(tuple(tensor.shape) for tensor in node.outputs)
            name = path + names[id(node)]
            outputs = self.apply(node.operation, name, args, kwargs, shapes)
            for tensor, seen in zip(node.outputs, flat(outputs), strict=True):
                known[id(tensor)] = seen
        outputs = [known[id(tensor)] for tensor in graph.outputs]
        return outputs[0] if len(outputs) == 1 else outputs

    def _nodes(self, graph: Any, path: str) -> list[Any]:
        """Applications of layers in the order of computation: those that are needed."""
        by_depth = graph._nodes_by_depth
        inputs = {id(tensor) for tensor in graph.inputs}
        nodes = [
            node
            for depth in sorted(by_depth, reverse=True)
            for node in by_depth[depth]
            if not node.is_input and not all(id(x) in inputs for x in node.outputs)
        ]
        if self.target is None or path:
            return nodes
        names = _names(nodes)
        ends = [n for n in nodes if names[id(n)] == self.target.partition("/")[0]]
        if not ends:
            return nodes  # the walk ends without coming to the target
        needed: set[int] = set()
        while ends:
            node = ends.pop()
            if id(node) not in needed:
                needed.add(id(node))
                ends.extend(node.parent_nodes)
        return [node for node in nodes if id(node) in needed]

    def apply(
        self,
        layer: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        shapes: tuple[Shape, ...] = (),
    ) -> Any:
        """What the outputs of a layer see, in the structure in which it returns them.

        Raises:
            ConfigError: No rule for the layer, or its rule contradicts Keras.
            Reached: It is the layer at which the walk ends.
        """
        if is_model(layer):
            outputs = self.through_model(layer, tensors_in((args, kwargs)), f"{name}/")
        else:
            call = WalkCall(self, name, args, kwargs, shapes)
            first = args[0] if args else next(iter(kwargs.values()), None)
            outputs = find_rule(layer, name)(layer, first, call)
        signed = [_signed(seen, name) for seen in flat(outputs)]
        if shapes:
            signed = [
                _checked(seen, shape, name) for seen, shape in zip(signed, shapes, strict=True)
            ]
        if not signed:
            raise ConfigError(f"The rule of layer {name!r} returned nothing.")
        self.rows.append(Row(name, type(layer).__name__, signed[0], len(signed)))
        if name == self.target:
            raise Reached
        # Notes stand in the layer's own row; they are not the next layer's.
        parts = iter([replace(seen, notes=()) for seen in signed])
        return keras.tree.map_structure(lambda _: next(parts), outputs)


class WalkCall:
    """One application of a layer, as its rule is told of it; see `registry.Call`."""

    def __init__(
        self,
        walk: Walk,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        shapes: tuple[Shape, ...],
    ) -> None:
        self.name, self.args, self.kwargs, self.shapes = name, args, kwargs, shapes
        self._walk = walk
        self._inside: Counter[str] = Counter()

    def apply(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """What the output of another layer sees that is applied to these inputs."""
        self._inside[layer.name] += 1
        again = self._inside[layer.name]
        name = f"{self.name}/{layer.name}{f'#{again}' if again > 1 else ''}"
        return self._walk.apply(layer, name, args, kwargs)

    def tensors(self) -> list[TensorField]:
        """What all arguments that are tensors see, constants included, in order."""
        return tensors_in((self.args, self.kwargs))


def is_model(layer: Any) -> bool:
    """Whether a layer is a graph of layers, which can be walked through."""
    return isinstance(layer, keras.Function | keras.Sequential)


def graph_of(model: Any, name: str = "") -> Any:
    """The graph of a functional or Sequential model.

    Raises:
        ConfigError: It has none.
    """
    where = f"Model {(name.rstrip('/') or getattr(model, 'name', ''))!r}"
    if isinstance(model, keras.Sequential):
        # Keras keeps the graph of a Sequential model there, and nowhere else.
        graph = getattr(model, "_functional", None)
        if graph is None:
            raise ConfigError(
                f"{where} is a Sequential model without a known input shape: begin it with "
                "keras.Input(shape), or build it."
            )
        return graph
    if not is_model(model):
        raise ConfigError(
            f"{where} is no functional or Sequential model but a {full_name(type(model))}: "
            "what its Python code does cannot be seen. Build it as "
            "keras.Model(inputs, outputs)."
        )
    functional = next(k for k in type(model).__mro__ if k.__module__.startswith("keras."))
    if overrides_call(type(model), functional):
        raise ConfigError(
            f"{where} overrides `call` in its class {full_name(type(model))}: what it does "
            "there cannot be seen."
        )
    return model


def flat(structure: Any) -> list[TensorField]:
    """All fields in nested lists, tuples and dicts."""
    return [x for x in keras.tree.flatten(structure) if isinstance(x, TensorField)]


def tensors_in(structure: Any) -> list[TensorField]:
    """The same, with a field that sees nothing for each tensor that is a constant."""
    return [
        x if isinstance(x, TensorField) else TensorField(tuple(x.shape))
        for x in keras.tree.flatten(structure)
        if isinstance(x, TensorField) or hasattr(x, "shape")
    ]


def _names(nodes: Sequence[Any]) -> dict[int, str]:
    """Name of each application: numbered where a layer is applied several times."""
    total = Counter(id(node.operation) for node in nodes)
    before: Counter[int] = Counter()
    names = {}
    for node in nodes:
        before[id(node.operation)] += 1
        number = f"#{before[id(node.operation)]}" if total[id(node.operation)] > 1 else ""
        names[id(node)] = node.operation.name + number
    return names


def _signed(seen: TensorField, name: str) -> TensorField:
    """With the layer's name wherever its rule left that out."""
    states = tuple(
        replace(state, by=name)
        if isinstance(state, Pooled | Unlimited) and not state.by
        else state
        for state in seen.axes
    )
    return replace(seen, axes=states, name=name)


def _checked(seen: TensorField, shape: Shape, name: str) -> TensorField:
    """With what Keras knows of the shape.

    Raises:
        ConfigError: The rule computed another shape.
    """
    same = len(shape) == seen.rank and all(
        a == b or a is None or b is None for a, b in zip(shape, seen.shape, strict=True)
    )
    if not same:
        raise ConfigError(
            f"The rule of layer {name!r} gives its output the shape {seen.shape}, but Keras "
            f"says {tuple(shape)}."
        )
    known = tuple(b if a is None else a for a, b in zip(shape, seen.shape, strict=True))
    return replace(seen, shape=known)
