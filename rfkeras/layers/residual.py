"""Residual block with freely chosen kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.layers.normalization import EPSILON, MOMENTUM, BatchNormalization

Pair = tuple[int, int]

INITIALIZATIONS = ("published", "he")


def he_normal(mode: str, scale: float = 2.0) -> keras.initializers.Initializer:
    """Normal initialiser of variance scale / fan; mode "fan_in" or "fan_out"."""
    return keras.initializers.VarianceScaling(
        scale=scale, mode=mode, distribution="untruncated_normal"
    )


def block_initializers(name: str, depth: int) -> tuple[Any, Any]:
    """Initialisers of a block's two convolutions.

    Raises:
        ConfigError: name is neither "published" nor "he".
    """
    if name == "published":
        return he_normal("fan_out", 2.0 / depth), keras.initializers.Zeros()
    if name == "he":
        return he_normal("fan_out"), he_normal("fan_out")
    raise ConfigError(unknown_name("initialization", name, INITIALIZATIONS))


@keras.saving.register_keras_serializable(package="rfkeras")
class ResidualBlock(keras.layers.Layer):
    """Two convolutions around a shortcut: conv, BN, ReLU, conv, BN, add, ReLU.

    The kernels set how much the block widens the receptive field; zero padding keeps the
    map's size. Where the number of channels changes, the shortcut is a 1x1 convolution
    with batch normalisation. With the published initialisation the block starts as its
    shortcut: the second convolution is zero, and the first is scaled down by the depth of
    the network.

    Args:
        filters: Output channels.
        kernel_size: Kernels of the two convolutions, each (time, frequency) and odd.
        depth: Residual blocks in the whole network; scales the published initialisation
            of the first convolution by depth ** -0.5.
        initialization: "published", or "he": both convolutions He-normal (fan-out).
        momentum: Of the batch normalisations.
        epsilon: Of the batch normalisations.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels); time and frequency may be unknown.

    Output shape:
        (batch, time, frequency, filters).

    Raises:
        ConfigError: filters or depth below 1, or an even kernel.

    Example:
        >>> block = ResidualBlock(64, kernel_size=((3, 3), (1, 1)))
        >>> block(np.zeros((1, 50, 16, 32), "float32")).shape
        (1, 50, 16, 64)

    Reference:
        Koutini et al., "Receptive-Field Regularized CNNs for Music Classification and
        Tagging", arXiv 2007.13503.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Sequence[Sequence[int]] = ((3, 3), (3, 3)),
        depth: int = 1,
        initialization: str = "published",
        momentum: float = MOMENTUM,
        epsilon: float = EPSILON,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if filters < 1 or depth < 1:
            raise ConfigError(
                f"ResidualBlock needs filters >= 1 and depth >= 1. "
                f"Received: filters={filters}, depth={depth}."
            )
        self.filters = filters
        self.kernel_size = _kernel_pairs(kernel_size)
        self.depth = depth
        self.initialization = initialization
        self.momentum = momentum
        self.epsilon = epsilon
        first, second = self.kernel_size
        initializers = block_initializers(initialization, depth)
        self.conv1 = self._conv(first, initializers[0], "conv1")
        self.bn1 = self._bn("bn1")
        self.relu1 = keras.layers.ReLU(dtype=self.dtype_policy, name="relu1")
        self.conv2 = self._conv(second, initializers[1], "conv2")
        self.bn2 = self._bn("bn2")
        self.add = keras.layers.Add(dtype=self.dtype_policy, name="add")
        self.relu2 = keras.layers.ReLU(dtype=self.dtype_policy, name="relu2")
        self.shortcut_conv: Any = None  # made in build, where the channels change
        self.shortcut_bn: Any = None

    def _conv(self, kernel: Pair, initializer: Any, name: str) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            self.filters,
            kernel,
            padding="same",
            use_bias=False,
            kernel_initializer=initializer,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name=name,
        )

    def _bn(self, name: str) -> keras.layers.Layer:
        return BatchNormalization(
            self.momentum, self.epsilon, dtype=self.dtype_policy, name=name
        )

    def build(self, input_shape: Sequence[int | None]) -> None:
        output_shape = self.compute_output_shape(input_shape)
        self.conv1.build(input_shape)
        self.bn1.build(output_shape)
        self.conv2.build(output_shape)
        self.bn2.build(output_shape)
        if input_shape[-1] != self.filters:
            self.shortcut_conv = self._conv((1, 1), he_normal("fan_out"), "shortcut_conv")
            self.shortcut_bn = self._bn("shortcut_bn")
            self.shortcut_conv.build(input_shape)
            self.shortcut_bn.build(output_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = self.relu1(self.bn1(self.conv1(inputs), training=training))
        x = self.bn2(self.conv2(x), training=training)
        if self.shortcut_conv is None:
            shortcut = inputs
        else:
            shortcut = self.shortcut_bn(self.shortcut_conv(inputs), training=training)
        return self.relu2(self.add([shortcut, x]))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "depth": self.depth,
            "initialization": self.initialization,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


def _kernel_pairs(kernel_size: Sequence[Sequence[int]]) -> tuple[Pair, Pair]:
    pairs = tuple(tuple(kernel) for kernel in kernel_size)
    if len(pairs) != 2 or any(
        len(pair) != 2 or any(k < 1 or k % 2 == 0 for k in pair) for pair in pairs
    ):
        raise ConfigError(
            "kernel_size must be two pairs (time, frequency) of odd numbers, one pair for "
            f"each convolution, such as ((3, 3), (1, 1)). Received: {kernel_size!r}."
        )
    (t1, f1), (t2, f2) = pairs
    return (t1, f1), (t2, f2)
