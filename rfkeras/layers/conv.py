"""Convolutions of the residual networks: plain, damped, decomposed; one way to make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from rfkeras.errors import ConfigError

Pair = tuple[int, int]

INITIALIZER = "glorot_uniform"  # of Keras' own convolutions


def he_normal(mode: str, scale: float = 2.0) -> keras.initializers.Initializer:
    """Normal initialiser of variance scale / fan; mode "fan_in" or "fan_out"."""
    return keras.initializers.VarianceScaling(
        scale=scale, mode=mode, distribution="untruncated_normal"
    )


def damping_window(size: int, minimum: float) -> NDArray[np.float32]:
    """Factors of a damped kernel along one axis: 1 in the middle, `minimum` at both ends.

    Linear between them: 1 - (1 - minimum) * |i - c| / c with c = (size - 1) / 2. A kernel
    under 3 has no ends to damp.

    Returns:
        (size,) float32.
    """
    if size < 3:
        return np.ones(size, np.float32)
    middle = (size - 1) / 2
    distance = np.abs(np.arange(size) - middle) / middle
    return np.asarray(1.0 - (1.0 - minimum) * distance, np.float32)


@keras.saving.register_keras_serializable(package="rfkeras")
class DampedConv2D(keras.layers.Conv2D):
    """Convolution whose kernel counts less the farther it reaches from its middle.

    The kernel is multiplied by a fixed window that falls from 1 in the middle to `damping`
    at the ends, along frequency and, if asked for, along time: a soft limit on the
    receptive field.

    Args:
        filters: Output channels.
        kernel_size: (time, frequency).
        damping: Factor at the ends, 0 to 1; 1 damps nothing.
        damp_time: Damp along time too.
        **kwargs: As for `keras.layers.Conv2D`; data_format is always channels_last.

    Input shape:
        (batch, time, frequency, channels).

    Output shape:
        (batch, time', frequency', filters).

    Raises:
        ConfigError: damping is outside of 0 to 1.

    Reference:
        Koutini et al., "Receptive-field regularized CNN variants for acoustic scene
        classification", DCASE 2019, arXiv 1909.02859.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        damping: float = 0.01,
        damp_time: bool = False,
        **kwargs: Any,
    ):
        super().__init__(filters, kernel_size, **{**kwargs, "data_format": "channels_last"})
        check_damping(damping)
        self.damping = damping
        self.damp_time = damp_time
        time, frequency = self.kernel_size
        along_time = damping_window(time, damping) if damp_time else np.ones(time, np.float32)
        self.window = np.outer(along_time, damping_window(frequency, damping))[..., None, None]

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        window = ops.convert_to_tensor(self.window, dtype=kernel.dtype)
        return super().convolution_op(inputs, kernel * window)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "damping": self.damping,
            "damp_time": self.damp_time,
        }


@keras.saving.register_keras_serializable(package="rfkeras")
class DecomposedConv2D(keras.layers.Layer):
    """A convolution in three: 1x1 to filters // factor channels, the kernel, 1x1 back.

    Nothing stands between the three, so they are one linear map with fewer parameters.
    With damping, only the one in the middle is damped.

    Args:
        filters: Output channels.
        kernel_size: (time, frequency) of the one in the middle.
        factor: By what the channels are divided.
        damping: As for `DampedConv2D`; None for no damping.
        damp_time: As for `DampedConv2D`.
        initializer: Of the last convolution.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels).

    Output shape:
        (batch, time, frequency, filters); zero padding keeps the size.

    Raises:
        ConfigError: factor is under 1 or over filters.

    Reference:
        Koutini et al., "Low-complexity models for acoustic scene classification based on
        receptive field regularization and frequency damping", DCASE 2020, arXiv 2011.02955.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Sequence[int],
        factor: int = 4,
        damping: float | None = None,
        damp_time: bool = False,
        initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if (
            isinstance(factor, bool)
            or not isinstance(factor, int)
            or not 1 <= factor <= filters
        ):
            raise ConfigError(
                f"decomposition must be a whole number from 1 to the {filters} channels of "
                f"the layer. Received: {factor!r}."
            )
        self.filters = filters
        self.kernel_size: Pair = (kernel_size[0], kernel_size[1])
        self.factor = factor
        self.damping = damping
        self.damp_time = damp_time
        self.initializer = keras.initializers.get(initializer or he_normal("fan_out"))
        narrow = filters // factor
        # No ReLU follows these two, so they get no factor 2 to make up for one.
        linear = he_normal("fan_out", scale=1.0)
        self.narrow = self._conv(narrow, (1, 1), "narrow", linear)
        self.spread = self._conv(narrow, self.kernel_size, "spread", linear, damping, damp_time)
        self.widen = self._conv(filters, (1, 1), "widen", self.initializer)

    def _conv(
        self,
        filters: int,
        kernel: Pair,
        name: str,
        initializer: Any,
        damping: float | None = None,
        damp_time: bool = False,
    ) -> keras.layers.Layer:
        return make_conv(
            filters,
            kernel,
            damping=damping,
            damp_time=damp_time,
            initializer=initializer,
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = tuple(input_shape)
        for layer in (self.narrow, self.spread, self.widen):
            layer.build(shape)
            shape = (*shape[:-1], layer.filters)

    def call(self, inputs: Any) -> Any:
        return self.widen(self.spread(self.narrow(inputs)))

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """See `rfkeras.rf.register_rule`."""
        for layer in (self.narrow, self.spread, self.widen):
            inputs = call.apply(layer, inputs)
        return inputs

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "factor": self.factor,
            "damping": self.damping,
            "damp_time": self.damp_time,
            "initializer": keras.initializers.serialize(self.initializer),
        }


def make_conv(
    filters: int,
    kernel_size: Pair,
    *,
    damping: float | None = None,
    damp_time: bool = False,
    decomposition: int | None = None,
    initializer: Any = INITIALIZER,
    **kwargs: Any,
) -> keras.layers.Layer:
    """A convolution without bias in the variant that the options name.

    Args:
        filters: Output channels.
        kernel_size: (time, frequency).
        damping: Factor at the kernel's ends, or None for no damping.
        damp_time: Damp along time too.
        decomposition: Factor of a `DecomposedConv2D`, or None for one whole convolution.
            It keeps the map's size, so strides and padding cannot be given.
        initializer: Of the kernel; of a decomposed one's last kernel.
        **kwargs: name, dtype, strides and so on; padding is "same" unless it says else.

    Raises:
        ConfigError: An option is out of its range.
    """
    if decomposition is not None:
        return DecomposedConv2D(
            filters, kernel_size, decomposition, damping, damp_time, initializer, **kwargs
        )
    arguments = {
        "padding": "same",
        "use_bias": False,
        "kernel_initializer": initializer,
        "data_format": "channels_last",
        **kwargs,
    }
    if damping is not None:
        check_damping(damping)
    damped_sizes = kernel_size if damp_time else kernel_size[1:]
    if damping is None or max(damped_sizes) < 3:  # nothing to damp
        return keras.layers.Conv2D(filters, kernel_size, **arguments)
    return DampedConv2D(filters, kernel_size, damping, damp_time, **arguments)


def check_damping(damping: Any) -> None:
    """Refuse a damping outside of 0 to 1.

    Raises:
        ConfigError: It is outside.
    """
    number = isinstance(damping, int | float) and not isinstance(damping, bool)
    if not number or not 0.0 <= damping <= 1.0:
        raise ConfigError(
            "damping must be a number from 0 to 1: what is left of the kernel at its ends; "
            f"the published networks have 0.01 or 0.1. Received: {damping!r}."
        )


@keras.saving.register_keras_serializable(package="rfkeras")
class FrequencyChannel(keras.layers.Layer):
    """Appends a channel that tells how high a row lies: 2 i / F - 1 for row i of F.

    A convolution is blind to absolute frequency; where the receptive field is small, the
    network cannot tell it from the borders either. With this channel it can. The value
    runs from -1 and does not reach 1, as in the published networks. (kapre's
    `ConcatenateFrequencyMap` runs from 0 to 1.)

    Args:
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels).

    Output shape:
        (batch, time, frequency, channels + 1).

    Reference:
        Koutini et al., "Emotion and Theme Recognition in Music with Frequency-Aware
        RF-Regularized CNNs", MediaEval 2019.
    """

    def call(self, inputs: Any) -> Any:
        shape = ops.shape(inputs)
        # float32 first: bfloat16 cannot count to 256 exactly.
        rows = ops.arange(shape[2], dtype="float32")
        ramp = 2.0 * rows / ops.cast(shape[2], "float32") - 1.0
        ramp = ops.cast(ops.reshape(ramp, (1, 1, -1, 1)), inputs.dtype)
        channel = ops.broadcast_to(ramp, (shape[0], shape[1], shape[2], 1))
        return ops.concatenate([inputs, channel], axis=-1)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """See `rfkeras.rf.register_rule`: the channel is no input's."""
        channels = inputs.shape[-1]
        return inputs.as_channels(-1).resized(-1, None if channels is None else channels + 1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (*input_shape[:-1], input_shape[-1] + 1)  # type: ignore[operator]
