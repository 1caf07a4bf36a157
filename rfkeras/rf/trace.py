"""Walks through a Keras model, layer by layer, and keeps what every output sees."""

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


AXES = (TIME, FREQUENCY)

Value = TypeVar("Value")


def report(rows: Sequence[Row], output: TensorField) -> ReceptiveField:
    """The receptive field of one tensor, with a row for each layer that was walked through.

    Raises:
        ConfigError: The tensor does not depend on the input, or the input has no time axis.
    """
    source = output.source
    if source is None:
        raise ConfigError(f"The output of {output.name!r} does not depend on the input.")
    if not source.axes:
        raise ConfigError(
            "The input has features and no time axis: the first layer reads all of it at once."
        )
    states = _states(output, source)
    order = [row.name for row in rows]
    pools = [state.by for state in states if isinstance(state, Pooled)]
    layers = tuple(_layer_field(row, source) for row in rows)
    assumed = [f"{row.name!r}: {note}" for row in rows for note in row.seen.notes]
    notes = [
        f"{axis} is without limit: {state.by!r}: {state.why}"
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
        notes.insert(0, "counted in positions of what comes before the spectrogram")
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
    """What is seen along time and, if there is such an axis, frequency."""
    return [seen.axes[axis] for axis in source.axes[:2]]


def _field(state: AxisState) -> AxisField | None:
    return None if isinstance(state, Unlimited) else state.field


def _new_limits(states: Sequence[AxisState], name: str) -> list[str]:
    """What this layer did to whole axes."""
    pooled = [
        axis
        for axis, state in zip(AXES, states, strict=False)
        if isinstance(state, Pooled) and state.by == name
    ]
    notes = [f"pools over {' and '.join(pooled)}"] if pooled else []
    return notes + [
        f"{axis} without limit: {state.why}"
        for axis, state in zip(AXES, states, strict=False)
        if isinstance(state, Unlimited) and state.by == name
    ]


def _positions(seen: TensorField, states: Sequence[AxisState]) -> tuple[int | None, int | None]:
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
