"""Residual block with freely chosen kernels, and the variants of the paper as its options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from rfkeras.errors import ConfigError
from rfkeras.layers.branch import ResidualBranch, block_initializers
from rfkeras.layers.conv import Pair, he_normal, make_conv
from rfkeras.layers.normalization import EPSILON, MOMENTUM, BatchNormalization
from rfkeras.layers.shake import ShakeShake


@keras.saving.register_keras_serializable(package="rfkeras")
class ResidualBlock(keras.layers.Layer):
    """Branches of two convolutions, added to a shortcut: conv, BN, ReLU, conv, BN; ReLU.

    The kernels set how much the block widens the receptive field; zero padding keeps the
    map's size. Where the number of channels changes, the shortcut is a 1x1 convolution
    with batch normalisation. With the published initialisation the block starts as its
    shortcut: the second convolution is zero, and the first is scaled down by the depth of
    the network.

    Args:
        filters: Output channels.
        kernel_size: Kernels of the two convolutions, each (time, frequency) and odd.
        branches: Parallel branches with weights of their own; None: 2 with `shake`, else 1.
        shake: Add two branches by `ShakeShake` instead of by their mean; None: wherever
            there are two. That every branch has the block's kernels is this library's
            choice: for music the combination was never published in detail.
        shake_per: "sample" or "batch", see `ShakeShake`.
        frequency_aware: Give both convolutions of a branch a `FrequencyChannel`.
        damping: Damp every convolution, see `DampedConv2D`; None for no damping.
        damp_time: Damp along time too.
        decomposition: Make every convolution, the shortcut's included, a
            `DecomposedConv2D` with this factor; None for whole convolutions.
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
        ConfigError: An argument is out of its range.

    Example:
        >>> block = ResidualBlock(64, kernel_size=((3, 3), (1, 1)), branches=2)
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
        branches: int | None = None,
        shake: bool | None = None,
        shake_per: str = "sample",
        frequency_aware: bool = False,
        damping: float | None = None,
        damp_time: bool = False,
        decomposition: int | None = None,
        depth: int = 1,
        initialization: str = "published",
        momentum: float = MOMENTUM,
        epsilon: float = EPSILON,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if branches is None:
            branches = 2 if shake else 1
        if filters < 1 or depth < 1 or branches < 1:
            raise ConfigError(
                "ResidualBlock needs filters, depth and branches of at least 1. "
                f"Received: filters={filters}, depth={depth}, branches={branches}."
            )
        self.filters = filters
        self.kernel_size = _kernel_pairs(kernel_size)
        self.branches = branches
        self.shake = branches == 2 if shake is None else shake
        if self.shake and branches != 2:
            raise ConfigError(f"shake=True needs branches=2. Received: branches={branches}.")
        self.shake_per = shake_per
        self.frequency_aware = frequency_aware
        self.damping = damping
        self.damp_time = damp_time
        self.decomposition = decomposition
        self.depth = depth
        self.initialization = initialization
        self.momentum = momentum
        self.epsilon = epsilon
        self.residuals = [self._branch(number) for number in range(1, branches + 1)]
        self.mix = self._mixing_layer()
        self.add = keras.layers.Add(dtype=self.dtype_policy, name="add")
        self.relu = keras.layers.ReLU(dtype=self.dtype_policy, name="relu")
        self.shortcut_conv: Any = None  # made in build, where the channels change
        self.shortcut_bn: Any = None

    def _branch(self, number: int) -> ResidualBranch:
        return ResidualBranch(
            self.filters,
            self.kernel_size,
            initializers=block_initializers(self.initialization, self.depth),
            frequency_aware=self.frequency_aware,
            batch_norm={"momentum": self.momentum, "epsilon": self.epsilon},
            conv=self._conv_options,
            dtype=self.dtype_policy,
            name=f"branch{number}",
        )

    def _mixing_layer(self) -> Any:
        if self.branches == 1:
            return None
        if self.shake:
            return ShakeShake(self.shake_per, dtype=self.dtype_policy, name="shake")
        return keras.layers.Average(dtype=self.dtype_policy, name="average")

    @property
    def _conv_options(self) -> dict[str, Any]:
        return {
            "damping": self.damping,
            "damp_time": self.damp_time,
            "decomposition": self.decomposition,
        }

    def build(self, input_shape: Sequence[int | None]) -> None:
        output_shape = self.compute_output_shape(input_shape)
        for residual in self.residuals:
            residual.build(input_shape)
        if self.mix is not None:
            self.mix.build([output_shape] * self.branches)
        if input_shape[-1] != self.filters:
            self.shortcut_conv = make_conv(
                self.filters,
                (1, 1),
                initializer=he_normal("fan_out"),
                dtype=self.dtype_policy,
                name="shortcut_conv",
                **self._conv_options,
            )
            self.shortcut_bn = BatchNormalization(
                self.momentum, self.epsilon, dtype=self.dtype_policy, name="shortcut_bn"
            )
            self.shortcut_conv.build(input_shape)
            self.shortcut_bn.build(output_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        outputs = [residual(inputs, training=training) for residual in self.residuals]
        if self.branches == 1:
            (x,) = outputs
        elif self.shake:
            x = self.mix(outputs, training=training)
        else:
            x = self.mix(outputs)
        if self.shortcut_conv is None:
            shortcut = inputs
        else:
            shortcut = self.shortcut_bn(self.shortcut_conv(inputs), training=training)
        return self.relu(self.add([shortcut, x]))

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """See `rfkeras.receptive_field.register_rule`."""
        outputs = [call.apply(residual, inputs) for residual in self.residuals]
        x = outputs[0] if self.mix is None else call.apply(self.mix, outputs)
        shortcut = inputs
        if self.shortcut_conv is not None:
            shortcut = call.apply(self.shortcut_bn, call.apply(self.shortcut_conv, inputs))
        return call.apply(self.add, [shortcut, x])

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "branches": self.branches,
            "shake": self.shake,
            "shake_per": self.shake_per,
            "frequency_aware": self.frequency_aware,
            "damping": self.damping,
            "damp_time": self.damp_time,
            "decomposition": self.decomposition,
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
