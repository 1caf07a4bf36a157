"""A folded copy of a functional model."""

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
from rfkeras.layers.conv import DampedConv2D, DecomposedConv2D, FrequencyChannel, Pair
from rfkeras.layers.dense import DenseLayer
from rfkeras.layers.replicated import BatchNormalization
from rfkeras.layers.residual import ResidualBlock, ResidualBranch
from rfkeras.rf.trace import graph_of, is_model

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Convolution:
    """A convolution of maps (batch, time, frequency, channels), without activation.

    Attributes:
        kernel: (time, frequency, input channels of a group, output channels).
        bias: (output channels,); None for none. One of zeros stays one: TensorFlow fuses a
            convolution with what follows it only where there is a bias between.
        strides: (time, frequency).
        dilation: (time, frequency).
        padding: "same" or "valid".
        groups: Into which the channels are divided.
    """

    kernel: Array
    bias: Array | None = None
    strides: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: str = "same"
    groups: int = 1

    @property
    def multiplications(self) -> int:
        """For each position of the output."""
        return int(self.kernel.size)

    def scaled(self, factor: float | Array) -> Convolution:
        """With outputs multiplied, all alike or each channel by a factor of its own."""
        bias = None if self.bias is None else self.bias * factor
        return replace(self, kernel=self.kernel * factor, bias=bias)

    def normalised(self, bn: keras.layers.BatchNormalization) -> Convolution:
        """With a batch normalisation after it, by its moving statistics."""
        scale = 1.0 / np.sqrt(numbers(bn.moving_variance) + bn.epsilon)
        if bn.scale:
            scale = scale * numbers(bn.gamma)
        shift = -numbers(bn.moving_mean) * scale
        if bn.center:
            shift = shift + numbers(bn.beta)
        scaled = self.scaled(scale)
        return replace(scaled, bias=shift if scaled.bias is None else scaled.bias + shift)

    def then(self, following: Convolution) -> Convolution:
        """This one and the following one as a single one.

        One of them must be 1x1, and this one without bias, which zero padding between the
        two would not reach; both undivided, with steps of 1 and padding "same".
        """
        if self.kernel.shape[:2] == (1, 1):
            kernel = np.einsum("im,tfmo->tfio", self.kernel[0, 0], following.kernel)
        else:
            kernel = np.einsum("tfim,mo->tfio", self.kernel, following.kernel[0, 0])
        return replace(following, kernel=kernel)

    def layer(self, name: str) -> keras.layers.Conv2D:
        """A layer that computes it in float32; its weights are set by `assign`."""
        # Nobody reads the initial values, and random ones take long to draw.
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
        """Set the weights of a layer, once it is built."""
        layer.set_weights([each for each in (self.kernel, self.bias) if each is not None])


Chain = tuple[Convolution, ...]
"""Convolutions one after another, with nothing between."""


def side_by_side(convolutions: Sequence[Convolution]) -> Convolution:
    """Convolutions of one input as one, whose output has the channels of all in order."""
    kernel = np.concatenate([conv.kernel for conv in convolutions], axis=3)
    return replace(convolutions[0], kernel=kernel, bias=np.concatenate(_biases(convolutions)))


def summed(convolutions: Sequence[Convolution], shared: int = 0) -> Convolution:
    """The sum of convolutions as one, whose input has the channels of all in order.

    Args:
        convolutions: Each of an input of its own.
        shared: How many channels at the end all inputs have in common. The input of the sum
            has them once, at its end.
    """
    first = convolutions[0]
    own = first.kernel.shape[2] - shared
    kernels = [conv.kernel[:, :, :own] for conv in convolutions]
    kernels.append(np.sum([conv.kernel[:, :, own:] for conv in convolutions], axis=0))
    bias = np.sum(_biases(convolutions), axis=0)
    return replace(first, kernel=np.concatenate(kernels, axis=2), bias=bias)


def cheapest(chain: Sequence[Convolution]) -> Chain:
    """Neighbours of a chain merged wherever that leaves fewer multiplications.

    Args:
        chain: Of which `Convolution.then` can merge any neighbours.
    """
    best = tuple(chain)
    for i in range(len(chain) - 1):
        merged = (*chain[:i], chain[i].then(chain[i + 1]), *chain[i + 2 :])
        best = min(best, cheapest(merged), key=_multiplications)
    return best


def chain_of(layer: Any) -> Chain | None:
    """What a layer computes before its activation, as few multiplications.

    Returns:
        Convolutions; None where the layer is none of whose arithmetic is known.
    """
    if type(layer) is DecomposedConv2D:
        parts = [_single(part) for part in (layer.narrow, layer.spread, layer.widen)]
        known = [part for part in parts if part is not None]
        return cheapest(known) if len(known) == len(parts) else None
    single = _single(layer)
    return None if single is None else (single,)


def _single(layer: Any) -> Convolution | None:
    # A subclass may compute anything; weights of a quantised layer are no kernel.
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


def _biases(convolutions: Sequence[Convolution]) -> list[Array]:
    return [
        np.zeros(conv.kernel.shape[3]) if conv.bias is None else conv.bias
        for conv in convolutions
    ]


def numbers(variable: Any) -> Array:
    """A variable's value in float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


def _multiplications(chain: Sequence[Convolution]) -> int:
    return sum(conv.multiplications for conv in chain)


class Builder:
    """Makes the layers of one model, under names of their own.

    Args:
        names: That are taken: those of the source's layers, which keep them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._taken = set(names)
        self._copies: dict[int, Any] = {}

    def convolve(self, x: Any, chain: Chain, name: str, taken: bool = False) -> Any:
        """The convolutions of a chain, applied.

        Args:
            x: A symbolic tensor.
            chain: The convolutions.
            name: Of the layer; of several, "_1" and so on is added.
            taken: The name is that of the layer that this one stands for.
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
        """A ReLU, applied."""
        return keras.layers.ReLU(dtype="float32", name=self.name(name))(x)

    def apply(self, layer: Any, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """A copy of a layer with the same weights, applied; the same copy each time.

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
        """Whether `apply` has a copy of that layer already."""
        return id(layer) in self._copies

    def stand_in(self, layer: Any, copy: Any) -> None:
        """Let `apply` take this one as the copy of that layer, weights and all."""
        self._copies[id(layer)] = copy

    def name(self, wanted: str) -> str:
        """That name, or with a number where it is taken; taken from now on."""
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
            # Its function comes from this process, not from a file of unknown origin.
            return keras.layers.Lambda.from_config(config, safe_mode=False)
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"Layer {layer.name!r} cannot be copied, so the model cannot be folded: give its "
            f"class {type(layer).__name__} a get_config that names all arguments of its "
            f"constructor. ({type(error).__name__})"
        ) from error


def _copy_weights(source: Any, copy: Any) -> None:
    if not isinstance(source, keras.layers.Layer):
        return  # an operation of keras.ops
    # As from a file: layers such as Normalization compute something of their weights then.
    parts = zip(source._flatten_layers(), copy._flatten_layers(), strict=True)
    for part, twin in parts:
        store: dict[str, Any] = {}
        part.save_own_variables(store)
        if store:
            twin.load_own_variables(store)


def parts_of(layer: Any) -> Callable[[Any, Any, Builder], Any] | None:
    """Function (layer, inputs, builder) that applies a composed layer's folded parts.

    Returns:
        The function; None where the layer is no composed one of this library, or may compute
        something else.
    """
    if type(layer) is ResidualBlock:
        return residual_block
    if type(layer) is DenseLayer:
        return dense_layer
    return None


def residual_block(block: ResidualBlock, inputs: Any, builder: Builder) -> Any:
    """ReLU of the shortcut plus the mean of the branches.

    Branches of whole convolutions become one of as many times the channels: the same
    multiplications in larger products, and no mean. Addition and ReLU directly follow a
    convolution, whose kernel TensorFlow then lets do both.
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


def dense_layer(layer: DenseLayer, inputs: Any, builder: Builder) -> Any:
    """BN, ReLU, convolution with the second BN folded into it, ReLU, convolution, joined."""
    name, x = layer.name, inputs
    x = builder.relu(builder.apply(layer.bn1, x, name=f"{name}_bn1"), f"{name}_relu1")
    x = _with_frequency(builder, x, layer.frequency, f"{name}_frequency1")
    x = builder.convolve(x, _normalised(layer.conv1, layer.bn2), f"{name}_conv1")
    x = builder.relu(x, f"{name}_relu2")
    x = _with_frequency(builder, x, layer.frequency, f"{name}_frequency2")
    x = builder.convolve(x, _chain(layer.conv2), f"{name}_conv2")
    join = keras.layers.Concatenate(dtype="float32", name=builder.name(f"{name}_join"))
    return join([inputs, x])


def _branches(block: ResidualBlock) -> list[tuple[str, Chain, Chain, Any]]:
    """(name, first and second convolutions, frequency channel) of each branch that is left."""
    branches: Sequence[ResidualBranch] = block.residuals
    share = 1.0 / len(branches)
    firsts = [_normalised(branch.conv1, branch.bn1) for branch in branches]
    seconds = [_normalised(branch.conv2, branch.bn2) for branch in branches]
    # The share can be given to the last of each chain: they are linear.
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
    """Whether every layer of a model does."""
    return all(layer.compute_dtype in ("float32", None) for layer in model._flatten_layers())


def in_float32(model: keras.Model) -> keras.Model:
    """The model with every layer computing in float32.

    Inference on a CPU is slower in half precision than in float32, and rounds more.

    Args:
        model: Functional.

    Returns:
        The model itself where all layers do already; else a copy, with a copy of the weights.
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
