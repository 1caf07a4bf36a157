"""Convolutions, batch normalisation and the frequency channel, the parts of all blocks.

`make_conv` creates plain, damped and decomposed convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from rfkeras.errors import ConfigError
from rfkeras.layers.composite import CompositeLayer, check_kernel, check_map, check_whole
from rfkeras.utils.keras_workarounds import average_over_replicas

Pair = tuple[int, int]

EPSILON = 1e-5
MOMENTUM = 0.9  # share of the old statistics; PyTorch calls the same setting momentum 0.1


def make_conv(
    filters: int,
    kernel_size: int | Sequence[int],
    *,
    damping: float | None = None,
    damp_time: bool = False,
    decomposition: int | None = None,
    initializer: Any = "glorot_uniform",
    **kwargs: Any,
) -> keras.layers.Layer:
    """Create a convolution without bias: plain, damped, decomposed, or damped and decomposed.

    Args:
        filters: Output channels.
        kernel_size: (time, frequency), or one number for both.
        damping: Weight at the kernel edges, see `DampedConv2D`; None for no damping.
        damp_time: Damp along time too.
        decomposition: Factor of a `DecomposedConv2D`; None for a single convolution. A
            decomposed convolution keeps the map's size, so `strides` and `padding` cannot
            be combined with it.
        initializer: Initialiser of the kernel; if decomposed, of the last kernel.
        **kwargs: Other arguments of `keras.layers.Conv2D`, such as name, dtype and
            strides; padding is "same" by default.

    Returns:
        The layer, not built.

    Raises:
        ConfigError: An option is out of range.

    Example:
        >>> make_conv(16, (3, 3), damping=0.1)(np.zeros((1, 50, 20, 4), "float32")).shape
        TensorShape([1, 50, 20, 16])
    """
    kernel_size = check_kernel("make_conv", kernel_size)
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


def he_normal(mode: str, scale: float = 2.0) -> keras.initializers.Initializer:
    """Return a normal initialiser with variance scale / fan.

    Args:
        mode: "fan_in" or "fan_out".
        scale: 2 makes up for a ReLU that follows.
    """
    return keras.initializers.VarianceScaling(
        scale=scale, mode=mode, distribution="untruncated_normal"
    )


def check_damping(damping: Any) -> None:
    """Reject a damping outside 0 to 1.

    Raises:
        ConfigError: It is outside.
    """
    number = isinstance(damping, int | float) and not isinstance(damping, bool)
    if not number or not 0.0 <= damping <= 1.0:
        raise ConfigError(
            "damping must be a number from 0 to 1: the weight at the kernel edges. The "
            f"published networks use 0.01 or 0.1. Received: {damping!r}."
        )


def damping_window(size: int, minimum: float) -> NDArray[np.float32]:
    """Return the factors of a damped kernel along one axis.

    They fall linearly from 1 in the middle to `minimum` at both ends:
    1 - (1 - minimum) * |i - c| / c with c = (size - 1) / 2. Kernels smaller than 3 have no
    ends to damp.

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
    """2D convolution whose kernel fades towards its ends.

    The kernel is multiplied by a fixed window that falls from 1 in the middle to `damping`
    at the ends: along frequency, and optionally along time. This limits the receptive field
    softly.

    Args:
        filters: Output channels.
        kernel_size: (time, frequency).
        damping: Weight at the kernel edges, from 0 to 1 (1 = no damping).
        damp_time: Damp along time too.
        **kwargs: Arguments of `keras.layers.Conv2D`; data_format can only be
            channels_last, also if Keras' global setting differs.

    Input shape:
        (batch, time, frequency, channels).

    Output shape:
        (batch, time', frequency', filters).

    Raises:
        ConfigError: damping is outside 0 to 1, or data_format is "channels_first".

    Example:
        >>> conv = DampedConv2D(8, (3, 5), damping=0.1, padding="same")
        >>> conv(np.zeros((1, 50, 20, 4), "float32")).shape
        TensorShape([1, 50, 20, 8])

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
        if kwargs.get("data_format") not in (None, "channels_last"):
            raise ConfigError(
                "DampedConv2D: data_format must be 'channels_last', because damping runs along "
                f"frequency, the third axis. Received: {kwargs['data_format']!r}."
            )
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
class DecomposedConv2D(CompositeLayer):
    """Three convolutions in place of one: 1x1 to filters // factor channels, kernel, 1x1 back.

    There is no activation between them, so together they are one linear map with fewer
    parameters. Damping applies only to the middle one.

    Args:
        filters: Output channels.
        kernel_size: (time, frequency) of the middle convolution, or one number for both.
        factor: Divides the number of channels.
        damping: See `DampedConv2D`; None for no damping.
        damp_time: See `DampedConv2D`.
        initializer: Initialiser of the last convolution.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels).

    Output shape:
        (batch, time, frequency, filters); zero padding keeps the size.

    Raises:
        ConfigError: An argument is out of range, such as a factor above filters.

    Example:
        >>> conv = DecomposedConv2D(16, (3, 3), factor=4)
        >>> conv(np.zeros((1, 50, 20, 8), "float32")).shape
        TensorShape([1, 50, 20, 16])

    Reference:
        Koutini et al., "Low-complexity models for acoustic scene classification based on
        receptive field regularization and frequency damping", DCASE 2020, arXiv 2011.02955.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        factor: int = 4,
        damping: float | None = None,
        damp_time: bool = False,
        initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_whole("DecomposedConv2D", filters=filters)
        if (
            isinstance(factor, bool)
            or not isinstance(factor, int)
            or not 1 <= factor <= filters
        ):
            raise ConfigError(
                f"decomposition must be a whole number from 1 to {filters}, the channels of "
                f"the layer. Received: {factor!r}."
            )
        self.filters = filters
        self.kernel_size = check_kernel("DecomposedConv2D", kernel_size)
        self.factor = factor
        self.damping = damping
        self.damp_time = damp_time
        self.initializer = keras.initializers.get(initializer or he_normal("fan_out"))
        narrow = filters // factor
        # No ReLU follows these two, so they do not need the factor 2 of He initialisation.
        # An initialiser draws the same numbers each time, so each has its own.
        linear = [he_normal("fan_out", scale=1.0) for _ in range(2)]
        self.narrow = self._conv(narrow, (1, 1), "narrow", linear[0])
        self.spread = self._conv(
            narrow, self.kernel_size, "spread", linear[1], damping, damp_time
        )
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
        check_map(self, input_shape)
        shape = tuple(input_shape)
        for layer in (self.narrow, self.spread, self.widen):
            layer.build(shape)
            shape = (*shape[:-1], layer.filters)

    def call(self, inputs: Any) -> Any:
        return self.widen(self.spread(self.narrow(inputs)))

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """Return what the output sees; see `rfkeras.rf.register_rule`."""
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


@keras.saving.register_keras_serializable(package="rfkeras")
class FrequencyChannel(keras.layers.Layer):
    """Appends a channel with the frequency position of each row: 2 i / F - 1 for row i of F.

    A convolution cannot distinguish absolute frequencies, and with a small receptive field
    the network cannot infer them from the borders either. This channel provides them. The
    value starts at -1 and does not reach 1, as in the published networks. (kapre's
    `ConcatenateFrequencyMap` runs from 0 to 1.) The layer takes the arguments of
    `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels).

    Output shape:
        (batch, time, frequency, channels + 1).

    Example:
        >>> x = FrequencyChannel()(np.zeros((1, 1, 4, 1), "float32"))
        >>> x[0, 0, :, 1].numpy().tolist()
        [-1.0, -0.5, 0.0, 0.5]

    Reference:
        Koutini et al., "Emotion and Theme Recognition in Music with Frequency-Aware
        RF-Regularized CNNs", MediaEval 2019.
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        check_map(self, input_shape)

    def call(self, inputs: Any) -> Any:
        shape = ops.shape(inputs)
        # float32 first: bfloat16 cannot count to 256 exactly.
        rows = ops.arange(shape[2], dtype="float32")
        ramp = 2.0 * rows / ops.cast(shape[2], "float32") - 1.0
        ramp = ops.cast(ops.reshape(ramp, (1, 1, -1, 1)), inputs.dtype)
        # Not broadcast_to: TensorFlow 2.20 quantises it wrongly for TFLite's int8.
        channel = ramp * ops.ones((shape[0], shape[1], shape[2], 1), inputs.dtype)
        return ops.concatenate([inputs, channel], axis=-1)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """Return what the output sees: the new channel does not depend on the input.

        See `rfkeras.rf.register_rule`.
        """
        channels = inputs.shape[-1]
        return inputs.as_channels(-1).resized(-1, None if channels is None else channels + 1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (*input_shape[:-1], input_shape[-1] + 1)  # type: ignore[operator]


@keras.saving.register_keras_serializable(package="rfkeras")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over the last axis: fast, and correct with several replicas.

    It has the same weights, names and results as `keras.layers.BatchNormalization`, with
    two differences. On the TensorFlow backend, 4D maps use the fused kernel, which reads
    the map once instead of once per elementary operation. And the moving statistics are
    averaged over the replicas of a `tf.distribute` strategy, where Keras keeps one set per
    replica and saves the first. (The average of the replicas' variances is slightly
    smaller than the variance of the whole batch, which also includes the differences
    between the replicas' means.)

    Args:
        momentum: Share of the old moving statistics kept at each step.
        epsilon: Added to the variance.
        **kwargs: Arguments of `keras.layers.BatchNormalization`.

    Input shape:
        (batch, ..., channels).

    Output shape:
        Same as the input.

    Example:
        >>> BatchNormalization()(np.zeros((1, 50, 20, 8), "float32")).shape
        TensorShape([1, 50, 20, 8])
    """

    def __init__(self, momentum: float = MOMENTUM, epsilon: float = EPSILON, **kwargs: Any):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        return super().add_weight(*args, **average_over_replicas(kwargs))

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not self._fused_kernel_applies(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        use_batch = bool(training and self.trainable)
        outputs, mean, variance = self._fused(inputs, use_batch)
        if use_batch:
            kept = self.momentum
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                new = ops.cast(moving, "float32") * kept + value * (1.0 - kept)
                moving.assign(ops.cast(new, moving.dtype))
        return outputs

    def _fused_kernel_applies(self, inputs: Any, mask: Any) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.scale
            and self.center
            and mask is None
            and not self.synchronized
            and keras.backend.standardize_dtype(inputs.dtype)
            in ("float32", "float16", "bfloat16")
        )

    def _fused(self, inputs: Any, use_batch: bool) -> tuple[Any, Any, Any]:
        """Return (outputs, batch mean, batch variance) of the fused kernel."""
        import tensorflow as tf

        inputs = ops.cast(inputs, self.compute_dtype)
        # The kernel takes float32 only; under policies such as "float16" weights are smaller.
        scale, offset, moving_mean, moving_variance = (
            ops.cast(weight, "float32")
            for weight in (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        )
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=[] if use_batch else moving_mean,
            variance=[] if use_batch else moving_variance,
            epsilon=self.epsilon,
            exponential_avg_factor=1.0,
            data_format="NHWC",
            is_training=use_batch,
        )
        # The kernel divides by n - 1, Keras by n: correct it, so that both agree.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), variance.dtype)
        return outputs, mean, variance * (tf.maximum(count, 2.0) - 1.0) / count
