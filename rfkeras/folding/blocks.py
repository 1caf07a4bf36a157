"""Composed layers of this library, taken apart into layers of Keras and folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from rfkeras.folding.build import Builder
from rfkeras.folding.convolution import Chain, chain_of, side_by_side, summed
from rfkeras.layers.branch import ResidualBranch
from rfkeras.layers.dense import DenseLayer
from rfkeras.layers.frequency import FrequencyChannel
from rfkeras.layers.residual import ResidualBlock


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
