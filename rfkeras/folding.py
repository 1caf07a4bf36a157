"""Fold a model for inference: the same outputs with fewer operations.

`fold` is the entry point. `Convolution` contains the arithmetic, and `Builder` creates the
layers of the copy.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError
from rfkeras.layers.conv import (
    BatchNormalization,
    DampedConv2D,
    DecomposedConv2D,
    FrequencyChannel,
    Pair,
)
from rfkeras.layers.dense import DenseLayer
from rfkeras.layers.residual import ResidualBlock, ResidualBranch
from rfkeras.rf.trace import graph_of, is_model
from rfkeras.utils.keras_workarounds import graph_nodes

Array = NDArray[np.float64]
_log = logging.getLogger(__name__)


def fold(model: keras.Model) -> keras.Model:
    """Create an inference-only copy of a model that needs fewer operations.

    These parts are folded:

    - batch normalisation after a convolution, into its kernel and bias;
    - damping windows, into the kernels;
    - the branches of a block, into a single branch with all their channels;
    - the parts of a decomposed convolution, where that saves multiplications.

    Residual blocks and dense layers become separate Keras layers with names such as
    "stage1_block1_branch_conv1". All other layers are copied, including convolutions that
    are used several times or belong to custom classes, and any other batch normalisation.
    The copy has the same receptive field as the model.

    The outputs are the same except for float32 rounding, below 1e-5 of the largest logit.
    The copy has separate weights, so later training of the model does not change it. It is
    not suitable for training, because its batch normalisation is gone.

    Args:
        model: Functional or Sequential model; may contain such models. Layers with a
            reduced precision compute in float32 in the copy.

    Returns:
        A model with the same class, name, inputs and outputs; for a Sequential model, a
        functional model.

    Raises:
        ConfigError: The model is not functional or Sequential, or a layer cannot be copied
            because its class has no complete `get_config`.

    Example:
        >>> model = zoo.create_model("resnet_rf", num_classes=20, width=8)
        >>> fast = rfkeras.fold(model)
        >>> len(fast.weights) < len(model.weights)
        True
    """
    return _Folding(graph_of(in_float32(model))).run(type(model), model.name)


def fold_if_possible(model: keras.Model) -> keras.Model:
    """Fold a model if possible; otherwise log a warning and convert it to float32."""
    try:
        return fold(model)
    except ConfigError as error:
        _log.warning("Model %r runs slower because it is not folded. %s", model.name, error)
        return in_float32(model)


class _Folding:
    """Folds one model: walks along its graph from inputs to outputs."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        nodes = graph_nodes(graph)
        self._inputs = [node for node in nodes if node.is_input]
        self._nodes = [node for node in nodes if not node.is_input]
        self._calls = Counter(id(node.operation) for node in self._nodes)
        self._builder = Builder(operation.name for operation in graph.operations)
        # Nodes that read each tensor; None stands for the model's output.
        self._readers: dict[int, list[Any]] = {}
        for node in self._nodes:
            for tensor in node.input_tensors:
                self._readers.setdefault(id(tensor), []).append(node)
        for tensor in graph.outputs:
            self._readers.setdefault(id(tensor), []).append(None)
        self._tensors: dict[int, Any] = {}  # source tensor id to tensor of the copy

    def run(self, kind: type, name: str) -> keras.Model:
        """Return the folded model, with this class if possible and this name."""
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
        # The arguments of a custom constructor are unknown.
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
            builder.use_copy(layer, fold(layer))
        self._set(node, builder.apply(layer, *args, **kwargs))

    def _convolve(self, node: Any, x: Any, chain: Chain) -> None:
        """Fold a convolution with the batch normalisation or activation after it."""
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
        """Return the batch normalisation node that is the only reader of a convolution."""
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
    """Return whether a constructor may differ from that of `keras.Model`."""
    definer = next(base for base in kind.__mro__ if "__init__" in vars(base))
    return kind is keras.Sequential or not definer.__module__.startswith("keras.")


def _at_inference(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a layer is called with one tensor, and not in training mode."""
    return len(args) == 1 and all(value is None or value is False for value in kwargs.values())


def parts_of(layer: Any) -> Callable[[Any, Any, Builder], Any] | None:
    """Return the function (layer, inputs, builder) that applies a layer's folded parts.

    Returns:
        The function; None if the layer is not a composite layer of this library, or a
        subclass that could compute something else.
    """
    if type(layer) is ResidualBlock:
        return residual_block
    if type(layer) is DenseLayer:
        return dense_layer
    return None


def residual_block(block: ResidualBlock, inputs: Any, builder: Builder) -> Any:
    """Apply the folded parts of a residual block.

    Branches without decomposition become a single branch with all their channels, which
    needs the same multiplications in larger products, and no mean. The addition and the
    ReLU directly follow a convolution, so that TensorFlow fuses them into it.
    """
    name = block.name
    outputs = [
        _branch(builder, inputs, first, second, frequency, f"{name}_{label}")
        for label, first, second, frequency in _branches(block)
    ]
    shortcut = inputs
    if block.shortcut_conv is not None:
        chain = _normalised(block.shortcut_conv, block.shortcut_bn)
        shortcut = builder.convolve(inputs, chain, f"{name}_shortcut")
    add = keras.layers.Add(dtype="float32", name=builder.name(f"{name}_add"))
    return builder.relu(add([*outputs, shortcut]), f"{name}_relu")


def _branches(block: ResidualBlock) -> list[tuple[str, Chain, Chain, Any]]:
    """Return (name, first and second chain, frequency channel) of each folded branch."""
    branches: Sequence[ResidualBranch] = block.residuals
    share = 1.0 / len(branches)
    firsts = [_normalised(branch.conv1, branch.bn1) for branch in branches]
    seconds = [_normalised(branch.conv2, branch.bn2) for branch in branches]
    # The chains are linear, so the share can go into the last convolution of each.
    seconds = [(*chain[:-1], chain[-1].scaled(share)) for chain in seconds]
    frequency = branches[0].frequency
    if all(len(chain) == 1 for chain in (*firsts, *seconds)):
        first = side_by_side([chain[0] for chain in firsts])
        second = summed([chain[0] for chain in seconds], shared=int(frequency is not None))
        return [("branch", (first,), (second,), frequency)]
    return [
        (branch.name, first, second, frequency)
        for branch, first, second in zip(branches, firsts, seconds, strict=True)
    ]


def _branch(
    builder: Builder, x: Any, first: Chain, second: Chain, frequency: Any, name: str
) -> Any:
    x = _with_frequency(builder, x, frequency, f"{name}_frequency1")
    x = builder.relu(builder.convolve(x, first, f"{name}_conv1"), f"{name}_relu")
    x = _with_frequency(builder, x, frequency, f"{name}_frequency2")
    return builder.convolve(x, second, f"{name}_conv2")


def dense_layer(layer: DenseLayer, inputs: Any, builder: Builder) -> Any:
    """Apply the folded parts of a dense layer; its second BN is part of a convolution."""
    name, x = layer.name, inputs
    x = builder.relu(builder.apply(layer.bn1, x, name=f"{name}_bn1"), f"{name}_relu1")
    x = _with_frequency(builder, x, layer.frequency, f"{name}_frequency1")
    x = builder.convolve(x, _normalised(layer.conv1, layer.bn2), f"{name}_conv1")
    x = builder.relu(x, f"{name}_relu2")
    x = _with_frequency(builder, x, layer.frequency, f"{name}_frequency2")
    x = builder.convolve(x, _chain(layer.conv2), f"{name}_conv2")
    join = keras.layers.Concatenate(dtype="float32", name=builder.name(f"{name}_join"))
    return join([inputs, x])


def _with_frequency(builder: Builder, x: Any, frequency: Any, name: str) -> Any:
    if frequency is None:
        return x
    return FrequencyChannel(dtype="float32", name=builder.name(name))(x)


def _normalised(conv: Any, bn: keras.layers.BatchNormalization) -> Chain:
    chain = _chain(conv)
    return (*chain[:-1], chain[-1].normalised(bn))


def _chain(conv: Any) -> Chain:
    chain = chain_of(conv)
    assert chain is not None, conv  # of `make_conv`
    return chain


def computes_in_float32(model: keras.Model) -> bool:
    """Return whether every layer of a model computes in float32."""
    return all(layer.compute_dtype in ("float32", None) for layer in model._flatten_layers())


def in_float32(model: keras.Model) -> keras.Model:
    """Convert a model so that every layer computes in float32.

    On a CPU, inference in half precision is slower than in float32 and less exact.

    Args:
        model: Functional model.

    Returns:
        The model itself if all its layers compute in float32; else a copy with copied
        weights.
    """
    if computes_in_float32(model):
        return model
    clone = model.__class__.from_config(_float32_policies(model.get_config()))
    clone.set_weights(model.get_weights())
    return clone


def _float32_policies(config: Any) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {**config["config"], "name": "float32"}}
        return {key: _float32_policies(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_float32_policies(value) for value in config)
    return config


class Builder:
    """Creates the layers of the folded model, with unique names.

    Args:
        names: Names in use: those of the source's layers, which keep them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._taken = set(names)
        self._copies: dict[int, Any] = {}

    def convolve(self, x: Any, chain: Chain, name: str, taken: bool = False) -> Any:
        """Apply the convolutions of a chain.

        Args:
            x: A symbolic tensor.
            chain: The convolutions.
            name: Name of the layer; "_1" and so on is appended if there are several.
            taken: The name is that of the replaced layer, and may be used again.
        """
        for number, convolution in enumerate(chain, start=1):
            if len(chain) > 1:
                own = self.name(f"{name}_{number}")
            else:
                own = name if taken else self.name(name)
            layer = convolution.layer(own)
            x = layer(x)
            convolution.assign(layer)
        return x

    def relu(self, x: Any, name: str) -> Any:
        """Apply a ReLU."""
        return keras.layers.ReLU(dtype="float32", name=self.name(name))(x)

    def apply(self, layer: Any, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """Apply a copy of a layer with the same weights; each layer is copied once.

        Raises:
            ConfigError: The layer cannot be copied.
        """
        copy = self._copies.get(id(layer))
        if copy is not None:
            return copy(*args, **kwargs)
        copy = self._copies[id(layer)] = _copy(layer, name and self.name(name))
        outputs = copy(*args, **kwargs)
        _copy_weights(layer, copy)
        return outputs

    def has_copy(self, layer: Any) -> bool:
        """Return whether `apply` already has a copy of this layer."""
        return id(layer) in self._copies

    def use_copy(self, layer: Any, copy: Any) -> None:
        """Make `apply` use this copy of a layer, with its weights."""
        self._copies[id(layer)] = copy

    def name(self, wanted: str) -> str:
        """Reserve a unique name: the wanted one, with a number if it is in use."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def _copy(layer: Any, name: str | None) -> Any:
    try:
        config = layer.get_config()
        if name is not None:
            config["name"] = name
        if type(layer) is keras.layers.Lambda:
            # The same function: a stored one has lost the names of its module.
            return keras.layers.Lambda(
                layer.function,
                output_shape=layer._output_shape,
                mask=layer.mask,
                arguments=layer.arguments,
                name=config["name"],
                dtype=layer.dtype_policy,
            )
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"The model cannot be folded because layer {layer.name!r} cannot be copied. Give "
            f"its class {type(layer).__name__} a get_config with all arguments of its "
            f"constructor. ({type(error).__name__})"
        ) from error


def _copy_weights(source: Any, copy: Any) -> None:
    if not isinstance(source, keras.layers.Layer):
        return  # an operation of keras.ops
    # As if loaded from a file, because layers such as Normalization then derive values.
    parts = zip(source._flatten_layers(), copy._flatten_layers(), strict=True)
    for part, twin in parts:
        store: dict[str, Any] = {}
        part.save_own_variables(store)
        if store:
            twin.load_own_variables(store)


@dataclass(frozen=True)
class Convolution:
    """A convolution of maps (batch, time, frequency, channels), without activation.

    Attributes:
        kernel: (time, frequency, input channels of a group, output channels).
        bias: (output channels,), or None. A bias of zeros is kept, because TensorFlow fuses a
            convolution with the next operation only if there is a bias in between.
        strides: (time, frequency).
        dilation: (time, frequency).
        padding: "same" or "valid".
        groups: Number of groups of channels.
    """

    kernel: Array
    bias: Array | None = None
    strides: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: str = "same"
    groups: int = 1

    @property
    def multiplications(self) -> int:
        """Number of multiplications per output position."""
        return int(self.kernel.size)

    def scaled(self, factor: float | Array) -> Convolution:
        """Multiply the outputs by one factor, or by one factor per channel."""
        bias = None if self.bias is None else self.bias * factor
        return replace(self, kernel=self.kernel * factor, bias=bias)

    def normalised(self, bn: keras.layers.BatchNormalization) -> Convolution:
        """Fold in a batch normalisation that follows, with its moving statistics."""
        scale = 1.0 / np.sqrt(numbers(bn.moving_variance) + bn.epsilon)
        if bn.scale:
            scale = scale * numbers(bn.gamma)
        shift = -numbers(bn.moving_mean) * scale
        if bn.center:
            shift = shift + numbers(bn.beta)
        scaled = self.scaled(scale)
        return replace(scaled, bias=shift if scaled.bias is None else scaled.bias + shift)

    def then(self, following: Convolution) -> Convolution:
        """Merge this convolution and the following one.

        One of the two must be 1x1. This one must have no bias, because the zero padding
        between the two does not include it. Both must have one group, stride 1 and padding
        "same".
        """
        if self.kernel.shape[:2] == (1, 1):
            kernel = np.einsum("im,tfmo->tfio", self.kernel[0, 0], following.kernel)
        else:
            kernel = np.einsum("tfim,mo->tfio", self.kernel, following.kernel[0, 0])
        return replace(following, kernel=kernel)

    def layer(self, name: str) -> keras.layers.Conv2D:
        """Create the layer, which computes in float32; `assign` sets its weights."""
        # The initial values are not used, and drawing random ones is slow.
        return keras.layers.Conv2D(
            self.kernel.shape[-1],
            self.kernel.shape[:2],
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation,
            groups=self.groups,
            data_format="channels_last",
            use_bias=self.bias is not None,
            kernel_initializer="zeros",
            dtype="float32",
            name=name,
        )

    def assign(self, layer: keras.layers.Conv2D) -> None:
        """Set the weights of the layer, which must be built."""
        layer.set_weights([each for each in (self.kernel, self.bias) if each is not None])


Chain = tuple[Convolution, ...]
"""Consecutive convolutions with nothing in between."""


def chain_of(layer: Any) -> Chain | None:
    """Return the convolutions of a layer before its activation, merged where it pays.

    Returns:
        Convolutions; None if the arithmetic of the layer is unknown.
    """
    if type(layer) is DecomposedConv2D:
        parts = [_single(part) for part in (layer.narrow, layer.spread, layer.widen)]
        known = [part for part in parts if part is not None]
        return cheapest(known) if len(known) == len(parts) else None
    single = _single(layer)
    return None if single is None else (single,)


def _single(layer: Any) -> Convolution | None:
    # A subclass can compute anything, and quantised weights are not a plain kernel.
    if type(layer) not in (keras.layers.Conv2D, DampedConv2D):
        return None
    if layer.data_format != "channels_last" or getattr(layer, "quantization_mode", None):
        return None
    kernel = numbers(layer.kernel)
    if type(layer) is DampedConv2D:
        kernel = kernel * layer.window
    return Convolution(
        kernel,
        numbers(layer.bias) if layer.use_bias else None,
        tuple(layer.strides),
        tuple(layer.dilation_rate),
        layer.padding,
        layer.groups,
    )


def cheapest(chain: Sequence[Convolution]) -> Chain:
    """Merge neighbours of a chain wherever that saves multiplications.

    Args:
        chain: Convolutions whose neighbours `Convolution.then` can merge.
    """
    best = tuple(chain)
    for i in range(len(chain) - 1):
        merged = (*chain[:i], chain[i].then(chain[i + 1]), *chain[i + 2 :])
        best = min(best, cheapest(merged), key=_multiplications)
    return best


def _multiplications(chain: Sequence[Convolution]) -> int:
    return sum(conv.multiplications for conv in chain)


def side_by_side(convolutions: Sequence[Convolution]) -> Convolution:
    """Merge convolutions of the same input; the output has all their channels in order."""
    kernel = np.concatenate([conv.kernel for conv in convolutions], axis=3)
    return replace(convolutions[0], kernel=kernel, bias=np.concatenate(_biases(convolutions)))


def summed(convolutions: Sequence[Convolution], shared: int = 0) -> Convolution:
    """Merge a sum of convolutions; the input has all their channels in order.

    Args:
        convolutions: Convolutions of separate inputs.
        shared: Number of channels at the end that all inputs have in common. The input of
            the sum has them once, at its end.
    """
    first = convolutions[0]
    own = first.kernel.shape[2] - shared
    kernels = [conv.kernel[:, :, :own] for conv in convolutions]
    kernels.append(np.sum([conv.kernel[:, :, own:] for conv in convolutions], axis=0))
    bias = np.sum(_biases(convolutions), axis=0)
    return replace(first, kernel=np.concatenate(kernels, axis=2), bias=bias)


def _biases(convolutions: Sequence[Convolution]) -> list[Array]:
    return [
        np.zeros(conv.kernel.shape[3]) if conv.bias is None else conv.bias
        for conv in convolutions
    ]


def numbers(variable: Any) -> Array:
    """Return the value of a variable in float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
