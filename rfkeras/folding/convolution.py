"""Convolutions as numbers: how two linear maps become one.

All arithmetic is in float64, so that a folded model differs from its source by one rounding
of each weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from rfkeras.layers.conv import DampedConv2D, DecomposedConv2D, Pair

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
