"""A folded copy of a functional model."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import keras

from rfkeras.errors import ConfigError
from rfkeras.folding.blocks import parts_of
from rfkeras.folding.build import Builder
from rfkeras.folding.convolution import Chain, chain_of
from rfkeras.layers.normalization import BatchNormalization
from rfkeras.precision import in_float32
from rfkeras.receptive_field.walk import graph_of, is_model

_log = logging.getLogger(__name__)


def fold(model: keras.Model) -> keras.Model:
    """An inference-only copy of a model that computes the same with fewer operations.

    What it folds:

    - batch normalisation that follows a convolution, into its kernel and bias;
    - damping windows, into the kernels;
    - the mean of a block's branches, which become one branch of as many times the channels;
    - of a decomposed convolution those neighbours whose product takes fewer multiplications.

    Residual blocks and dense layers are taken apart into layers of Keras, under names such as
    "stage1_block1_branch_conv1". Convolutions that are used several times, those of classes
    of one's own, and batch normalisation anywhere else are copied as they are, as is every
    other layer. The copy's receptive field is the model's.

    Outputs are the model's own up to float32 rounding: 1e-5 of the largest logit and less.
    The copy has weights of its own, and does not follow the model when that is trained on. It
    is not meant for training: the normalisations that held training steady are gone.

    Args:
        model: Functional or Sequential, also with such models in it. Layers of a reduced
            precision compute in float32 in the copy.

    Returns:
        A model of the same class, name, inputs and outputs; of a Sequential one, a functional.

    Raises:
        ConfigError: The model is of another kind, or a layer cannot be copied because its
            class has no complete `get_config`.

    Example:
        >>> model = rfkeras.load_model("runs/NAME/model.keras")
        >>> fast = rfkeras.fold(model)
        >>> np.abs(fast(waveform) - model(waveform)).max()
    """
    return _Folding(graph_of(in_float32(model))).run(type(model), model.name)


def fold_if_possible(model: keras.Model) -> keras.Model:
    """`fold`, or the model itself in float32 where it cannot be folded; a warning says why."""
    try:
        return fold(model)
    except ConfigError as error:
        _log.warning("Model %r will be slower than it could be. %s", model.name, error)
        return in_float32(model)


class _Folding:
    """One walk along a model's graph, from its inputs to its outputs."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        depths = sorted(graph._nodes_by_depth, reverse=True)
        nodes = [node for depth in depths for node in graph._nodes_by_depth[depth]]
        self._inputs = [node for node in nodes if node.is_input]
        self._nodes = [node for node in nodes if not node.is_input]
        self._calls = Counter(id(node.operation) for node in self._nodes)
        self._builder = Builder(operation.name for operation in graph.operations)
        # Tensors that are read, by whom; outputs of the model are read by one more.
        self._readers: dict[int, list[Any]] = {}
        for node in self._nodes:
            for tensor in node.input_tensors:
                self._readers.setdefault(id(tensor), []).append(node)
        for tensor in graph.outputs:
            self._readers.setdefault(id(tensor), []).append(None)
        self._tensors: dict[int, Any] = {}  # of the copy, by the source's

    def run(self, kind: type, name: str) -> keras.Model:
        """The folded model, of that class if it can be, and of that name."""
        for node in self._inputs:
            layer = node.operation
            self._set(node, type(layer).from_config(layer.get_config()).output)
        for node in self._nodes:
            if id(node.outputs[0]) not in self._tensors:
                self._apply(node)
        inputs, outputs = (
            keras.tree.map_structure(lambda x: self._tensors[id(x)], structure)
            for structure in (self._graph.input, self._graph.output)
        )
        # Of a constructor of its own nobody knows what it takes.
        constructor: Any = keras.Model if _has_own_constructor(kind) else kind
        return constructor(inputs, outputs, name=name)

    def _apply(self, node: Any) -> None:
        layer, builder = node.operation, self._builder
        args, kwargs = node.arguments.fill_in(self._tensors)
        if self._calls[id(layer)] == 1 and _at_inference(args, kwargs):
            expand = parts_of(layer)
            if expand is not None:
                self._set(node, expand(layer, args[0], builder))
                return
            chain = chain_of(layer)
            if chain is not None:
                self._convolve(node, args[0], chain)
                return
        if is_model(layer) and not builder.has_copy(layer):
            builder.stand_in(layer, fold(layer))
        self._set(node, builder.apply(layer, *args, **kwargs))

    def _convolve(self, node: Any, x: Any, chain: Chain) -> None:
        """A convolution, with the batch normalisation or the activation after it."""
        name = node.operation.name
        activation = getattr(node.operation, "activation", keras.activations.linear)
        linear = activation is keras.activations.linear
        normalization = self._normalization_after(node) if linear else None
        if normalization is not None:
            chain = (*chain[:-1], chain[-1].normalised(normalization.operation))
        x = self._builder.convolve(x, chain, name, taken=True)
        if not linear:
            own = self._builder.name(f"{name}_activation")
            x = keras.layers.Activation(activation, dtype="float32", name=own)(x)
        self._set(normalization or node, x)

    def _normalization_after(self, node: Any) -> Any:
        """The node of the batch normalisation that alone reads a convolution's output."""
        readers = self._readers.get(id(node.outputs[0]), [])
        if len(readers) != 1 or readers[0] is None:
            return None
        (reader,) = readers
        bn = reader.operation
        foldable = (
            type(bn) in (keras.layers.BatchNormalization, BatchNormalization)
            and bn.axis in (-1, 3)
            and self._calls[id(bn)] == 1
            and _at_inference(reader.arguments.args, reader.arguments.kwargs)
        )
        return reader if foldable else None

    def _set(self, node: Any, outputs: Any) -> None:
        for old, new in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
            self._tensors[id(old)] = new


def _has_own_constructor(kind: type) -> bool:
    """Whether it is unknown what its constructor takes; a Sequential takes layers."""
    definer = next(base for base in kind.__mro__ if "__init__" in vars(base))
    return kind is keras.Sequential or not definer.__module__.startswith("keras.")


def _at_inference(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a layer is called on one tensor, and not as in training."""
    return len(args) == 1 and all(value is None or value is False for value in kwargs.values())
