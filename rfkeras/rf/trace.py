"""The exact receptive field: trace what every output sees through a model's layers.

`receptive_field` is the entry point. `Walk` applies the rule of each layer in the order of
computation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import keras

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.rf import rules  # noqa: F401
from rfkeras.rf.axis import AxisField
from rfkeras.rf.field import FREQUENCY, TIME, LayerField, ReceptiveField
from rfkeras.rf.rule_registry import find_rule, full_name, overrides_call
from rfkeras.rf.tensor import Along, AxisState, Pooled, Shape, Source, TensorField, Unlimited
from rfkeras.utils.keras_workarounds import graph_nodes, sequential_graph

AXES = (TIME, FREQUENCY)
Value = TypeVar("Value")


def receptive_field(
    model: Any,
    layer: str | None = None,
    input_shape: Sequence[int | None] | None = None,
    input_name: str | None = None,
) -> ReceptiveField:
    """Compute which part of the input each position of a model's output sees.

    The receptive field follows from the layers: kernels, strides, dilation, padding,
    pooling, up-sampling, branches and so on, also in nested models. Away from the ends of
    the map it is exact: the window is the smallest that contains every pixel the position
    depends on. A window that extends beyond the input contains everything that is read
    there, but with dilation it can contain more. Layers without a rule raise an error; see
    `register_rule`.

    Maps are (batch, time, frequency, channels), or (batch, channels, time, frequency) with
    `data_format="channels_first"`, or (batch, time, features), which have only a time axis.
    If the model computes a spectrogram from waveforms, pixels are those of the spectrogram.

    Args:
        model: Functional model, or Sequential model that is built.
        layer: Name of the layer whose output to analyse; "outer/inner" for a layer inside
            a nested model or layer, "name#2" for the second call of a layer. None: the
            model's output, or the map before pooling if the output is pooled over all
            positions.
        input_shape: Shape of the input without the batch, if the model leaves lengths open.
            The zero padding of strided layers with padding="same" depends on it. An unknown
            length is assumed to be a multiple of their strides; if that matters, the
            layer's note mentions it.
        input_name: Name of the input to analyse, if there are several.

    Returns:
        The receptive field; its `layers` has an entry for every layer up to the chosen one.

    Raises:
        ConfigError: The model has no graph of layers; it has several outputs or inputs and
            none was chosen; there is no such layer; a layer has no rule; or maps with
            different distances between positions are combined.

    Example:
        >>> field = receptive_field(zoo.create_model("resnet_rf", num_classes=20, rho=7))
        >>> field.time.size, field.frequency.size, field.pooled_by
        (135, 135, 'logits')
    """
    graph = graph_of(model)
    if layer is None and len(graph.outputs) > 1:
        names = [tensor._keras_history.operation.name for tensor in graph.outputs]
        raise ConfigError(
            f"The model has {len(names)} outputs. Choose one by `layer`: {', '.join(names)}."
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
    """Return what the inputs see: the chosen one its own positions, others nothing."""
    names = [tensor.name for tensor in graph.inputs]
    if input_name is None and len(names) > 1:
        raise ConfigError(
            f"The model has {len(names)} inputs. Choose one by `input_name`: "
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
            "The input must be a waveform, or have the shape (batch, time), (batch, time, "
            f"features) or (batch, time, frequency, channels). Received: {shape}."
        )
    states = tuple(Along(AxisField(), axis + 1) for axis in range(rank))
    inputs[chosen] = TensorField(
        shape, Source(rank, graph, settled=False), states, names[chosen]
    )
    return inputs


def _completed(shape: Shape, given: Sequence[int | None] | None) -> Shape:
    """Complete the shape of the input with the given lengths."""
    if given is None:
        return shape
    lengths = tuple(given)
    fits = len(lengths) == len(shape) - 1 and all(
        length is None or (isinstance(length, int) and length > 0 and known in (None, length))
        for known, length in zip(shape[1:], lengths, strict=False)
    )
    if not fits:
        raise ConfigError(
            f"input_shape must fit the model's input without the batch, {tuple(shape[1:])}. "
            f"Received: {lengths}."
        )
    known = (k if n is None else n for k, n in zip(shape[1:], lengths, strict=True))
    return (shape[0], *known)


@dataclass(frozen=True)
class Row:
    """One application of a layer.

    Attributes:
        name: Name of the layer; "outer/inner" for one inside another.
        kind: Name of its class.
        seen: What its (first) output sees.
        outputs: Number of its outputs.
    """

    name: str
    kind: str
    seen: TensorField
    outputs: int


class Reached(Exception):
    """The walk has reached the requested layer."""


class Walk:
    """One walk through a model.

    Args:
        target: Name of the layer at which it ends; None: the model's output.

    Attributes:
        rows: The layers applied so far, in order.
    """

    def __init__(self, target: str | None = None) -> None:
        self.target = target
        self.rows: list[Row] = []

    def through_model(self, model: Any, inputs: Sequence[TensorField], path: str) -> Any:
        """Return what the outputs of a model see, in the structure of its outputs.

        Args:
            model: Functional model, or Sequential model that is built.
            inputs: What its inputs see, in order.
            path: Name of the model followed by a slash; "" for the outermost model.
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
        """Return the required applications of layers, in the order of computation."""
        inputs = {id(tensor) for tensor in graph.inputs}
        nodes = [
            node
            for node in graph_nodes(graph)
            if not node.is_input and not all(id(x) in inputs for x in node.outputs)
        ]
        if self.target is None or path:
            return nodes
        names = _names(nodes)
        ends = [n for n in nodes if names[id(n)] == self.target.partition("/")[0]]
        if not ends:
            return nodes  # the walk will end without reaching the target
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
        """Return what the outputs of a layer see, in the structure of its outputs.

        Raises:
            ConfigError: The layer has no rule, or its rule contradicts Keras.
            Reached: The walk ends at this layer.
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
        # Notes belong to this layer's row, not to the next layer.
        parts = iter([replace(seen, notes=()) for seen in signed])
        return keras.tree.map_structure(lambda _: next(parts), outputs)


class WalkCall:
    """One application of a layer, as passed to its rule; see `rule_registry.Call`."""

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
        """Return what the output of another layer sees when applied to these inputs."""
        self._inside[layer.name] += 1
        again = self._inside[layer.name]
        name = f"{self.name}/{layer.name}{f'#{again}' if again > 1 else ''}"
        return self._walk.apply(layer, name, args, kwargs)

    def tensors(self) -> list[TensorField]:
        """Return what all tensor arguments see, including constants, in order."""
        return tensors_in((self.args, self.kwargs))


def _names(nodes: Sequence[Any]) -> dict[int, str]:
    """Return the name of each application, numbered if its layer is applied repeatedly."""
    total = Counter(id(node.operation) for node in nodes)
    before: Counter[int] = Counter()
    names = {}
    for node in nodes:
        before[id(node.operation)] += 1
        number = f"#{before[id(node.operation)]}" if total[id(node.operation)] > 1 else ""
        names[id(node)] = node.operation.name + number
    return names


def _signed(seen: TensorField, name: str) -> TensorField:
    """Add the layer's name wherever its rule omitted it."""
    states = tuple(
        replace(state, by=name)
        if isinstance(state, Pooled | Unlimited) and not state.by
        else state
        for state in seen.axes
    )
    return replace(seen, axes=states, name=name)


def _checked(seen: TensorField, shape: Shape, name: str) -> TensorField:
    """Complete the shape with what Keras knows.

    Raises:
        ConfigError: The rule computed a different shape.
    """
    same = len(shape) == seen.rank and all(
        a == b or a is None or b is None for a, b in zip(shape, seen.shape, strict=True)
    )
    if not same:
        raise ConfigError(
            f"The rule of layer {name!r} gives its output the shape {seen.shape}, but Keras "
            f"computes {tuple(shape)}."
        )
    known = tuple(b if a is None else a for a, b in zip(shape, seen.shape, strict=True))
    return replace(seen, shape=known)


def flat(structure: Any) -> list[TensorField]:
    """Return all fields in nested lists, tuples and dicts."""
    return [x for x in keras.tree.flatten(structure) if isinstance(x, TensorField)]


def tensors_in(structure: Any) -> list[TensorField]:
    """Return all fields, with one that sees nothing for each constant tensor."""
    return [
        x if isinstance(x, TensorField) else TensorField(tuple(x.shape))
        for x in keras.tree.flatten(structure)
        if isinstance(x, TensorField) or hasattr(x, "shape")
    ]


def is_model(layer: Any) -> bool:
    """Return whether a layer is a graph of layers."""
    return isinstance(layer, keras.Function | keras.Sequential)


def graph_of(model: Any, name: str = "") -> Any:
    """Return the graph of a functional or Sequential model.

    Raises:
        ConfigError: The model has no graph.
    """
    where = f"Model {(name.rstrip('/') or getattr(model, 'name', ''))!r}"
    if isinstance(model, keras.Sequential):
        graph = sequential_graph(model)
        if graph is None:
            raise ConfigError(
                f"{where} is a Sequential model with an unknown input shape. Start it with "
                "keras.Input(shape), or build it."
            )
        return graph
    if not is_model(model):
        raise ConfigError(
            f"{where} must be a functional or Sequential model. Received: a "
            f"{full_name(type(model))}, whose Python code cannot be analysed. Build it as "
            "keras.Model(inputs, outputs)."
        )
    functional = next(k for k in type(model).__mro__ if k.__module__.startswith("keras."))
    if overrides_call(type(model), functional):
        raise ConfigError(
            f"{where} overrides `call` in its class {full_name(type(model))}, which cannot "
            "be analysed."
        )
    return model


def report(rows: Sequence[Row], output: TensorField) -> ReceptiveField:
    """Return the receptive field of one tensor, with an entry for each applied layer.

    Raises:
        ConfigError: The tensor does not depend on the input, or the input has no time axis.
    """
    source = output.source
    if source is None:
        raise ConfigError(f"The output of {output.name!r} does not depend on the input.")
    if not source.axes:
        raise ConfigError(
            "The input has no time axis, because the first layer reads all of it as features."
        )
    states = _states(output, source)
    order = [row.name for row in rows]
    pools = [state.by for state in states if isinstance(state, Pooled)]
    layers = tuple(_layer_field(row, source) for row in rows)
    assumed = [f"{row.name!r}: {note}" for row in rows for note in row.seen.notes]
    notes = [
        f"{axis} is unlimited: {state.by!r}: {state.why}"
        for axis, state in zip(AXES, states, strict=False)
        if isinstance(state, Unlimited)
    ]
    time, frequency = _pair([_field(state) for state in states])
    return ReceptiveField(
        time=time,
        frequency=frequency,
        layers=layers,
        pooled_by=min(pools, key=order.index, default=None),
        scale=source.scale,
        layer=output.name,
        axes=AXES[: len(states)],
        positions=_positions(output, states),
        notes=(*notes, *([] if time is frequency is None else assumed)),
        waveform=source.waveform,
    )


def _layer_field(row: Row, source: Source) -> LayerField:
    seen = row.seen
    if seen.source is None:
        return LayerField(row.name, row.kind, None, None, "does not depend on the input")
    in_pixels = seen.source.same_as(source)
    states = _states(seen, seen.source)
    notes = list(seen.notes)
    if row.outputs > 1:
        notes.insert(0, f"the first of {row.outputs} outputs")
    if not in_pixels:
        notes.insert(0, "counted in positions before the spectrogram")
    time, frequency = _pair([_field(state) for state in states])
    return LayerField(
        row.name,
        row.kind,
        time,
        frequency,
        "; ".join([*_new_limits(states, row.name), *notes]),
        _positions(seen, states),
        in_pixels,
    )


def _states(seen: TensorField, source: Source) -> list[AxisState]:
    """Return what is seen along time and, if there is such an axis, frequency."""
    return [seen.axes[axis] for axis in source.axes[:2]]


def _field(state: AxisState) -> AxisField | None:
    return None if isinstance(state, Unlimited) else state.field


def _new_limits(states: Sequence[AxisState], name: str) -> list[str]:
    """Describe what this layer did to whole axes."""
    pooled = [
        axis
        for axis, state in zip(AXES, states, strict=False)
        if isinstance(state, Pooled) and state.by == name
    ]
    notes = [f"pools over {' and '.join(pooled)}"] if pooled else []
    return notes + [
        f"{axis} unlimited: {state.why}"
        for axis, state in zip(AXES, states, strict=False)
        if isinstance(state, Unlimited) and state.by == name
    ]


def _positions(seen: TensorField, states: Sequence[AxisState]) -> tuple[int | None, int | None]:
    """Return the lengths of the map along time and frequency."""
    lengths: list[int | None] = []
    for state in states:
        if isinstance(state, Along):
            lengths.append(seen.shape[state.dim])
        else:
            lengths.append(state.length if isinstance(state, Pooled) else None)
    return _pair(lengths)


def _pair(values: Sequence[Value]) -> tuple[Value | None, Value | None]:
    first, *rest = values
    return first, rest[0] if rest else None
