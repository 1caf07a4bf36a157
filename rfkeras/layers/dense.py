"""The layer of a densely connected network (DenseNet)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from rfkeras.layers.composite import CompositeLayer, check_kernel, check_map, check_whole
from rfkeras.layers.conv import (
    EPSILON,
    MOMENTUM,
    BatchNormalization,
    FrequencyChannel,
    he_normal,
    make_conv,
)


@keras.saving.register_keras_serializable(package="rfkeras")
class DenseLayer(CompositeLayer):
    """DenseNet layer: BN, ReLU, 1x1 conv, BN, ReLU, conv, concatenated to the input.

    The 1x1 convolution always narrows the map to `bottleneck * growth_rate` channels. The
    kernel of the second convolution determines how much the layer widens the receptive
    field. Zero padding keeps the map's size. All kernels are initialised He-normal (fan-in).

    Args:
        growth_rate: Number of channels to append.
        kernel_size: (time, frequency) of the second convolution, or one number for both; odd.
        bottleneck: Number of channels between the convolutions, as a multiple of growth_rate.
        frequency_aware: Give both convolutions a `FrequencyChannel`.
        damping: Damping of the second convolution, see `DampedConv2D`; None for none.
        damp_time: Damp along time too.
        decomposition: Make the second convolution a `DecomposedConv2D` with this factor;
            None for a single convolution. The first one is never decomposed, because it is
            a 1x1 reduction already.
        momentum: Momentum of the batch normalisations.
        epsilon: Epsilon of the batch normalisations.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels); time and frequency may be unknown.

    Output shape:
        (batch, time, frequency, channels + growth_rate). The input's channels come first.

    Raises:
        ConfigError: An argument is out of range.

    Example:
        >>> DenseLayer(16)(np.zeros((1, 50, 20, 32), "float32")).shape
        TensorShape([1, 50, 20, 48])

    Reference:
        Huang et al., "Densely Connected Convolutional Networks", arXiv 1608.06993
        (DenseNet-B).
    """

    def __init__(
        self,
        growth_rate: int,
        kernel_size: int | Sequence[int] = (3, 3),
        bottleneck: int = 4,
        frequency_aware: bool = False,
        damping: float | None = None,
        damp_time: bool = False,
        decomposition: int | None = None,
        momentum: float = MOMENTUM,
        epsilon: float = EPSILON,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_whole("DenseLayer", growth_rate=growth_rate, bottleneck=bottleneck)
        self.growth_rate = growth_rate
        self.kernel_size = check_kernel("DenseLayer", kernel_size, odd=True)
        self.bottleneck = bottleneck
        self.frequency_aware = frequency_aware
        self.damping = damping
        self.damp_time = damp_time
        self.decomposition = decomposition
        self.momentum = momentum
        self.epsilon = epsilon
        policy = self.dtype_policy
        self.bn1, self.bn2 = (
            BatchNormalization(self.momentum, self.epsilon, dtype=policy, name=name)
            for name in ("bn1", "bn2")
        )
        self.relu = keras.layers.ReLU(dtype=policy, name="relu")
        self.frequency = (
            FrequencyChannel(dtype=policy, name="frequency") if self.frequency_aware else None
        )
        self.conv1 = make_conv(
            self.bottleneck * self.growth_rate,
            (1, 1),
            initializer=he_normal("fan_in"),
            dtype=policy,
            name="conv1",
        )
        self.conv2 = make_conv(
            self.growth_rate,
            self.kernel_size,
            damping=self.damping,
            damp_time=self.damp_time,
            decomposition=self.decomposition,
            initializer=he_normal("fan_in"),
            dtype=policy,
            name="conv2",
        )
        self.join = keras.layers.Concatenate(dtype=policy, name="join")

    def build(self, input_shape: Sequence[int | None]) -> None:
        check_map(self, input_shape)
        shape = tuple(input_shape)
        for bn, conv in ((self.bn1, self.conv1), (self.bn2, self.conv2)):
            bn.build(shape)
            if self.frequency is not None:
                shape = self.frequency.compute_output_shape(shape)
            conv.build(shape)
            shape = (*shape[:-1], conv.filters)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = inputs
        for bn, conv in ((self.bn1, self.conv1), (self.bn2, self.conv2)):
            x = self.relu(bn(x, training=training))
            x = conv(x if self.frequency is None else self.frequency(x))
        return self.join([inputs, x])

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """Return what the output sees; see `rfkeras.rf.register_rule`."""
        x = inputs
        for bn, conv in ((self.bn1, self.conv1), (self.bn2, self.conv2)):
            x = call.apply(self.relu, call.apply(bn, x))
            x = x if self.frequency is None else call.apply(self.frequency, x)
            x = call.apply(conv, x)
        return call.apply(self.join, [inputs, x])

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (*input_shape[:-1], input_shape[-1] + self.growth_rate)  # type: ignore[operator]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "growth_rate": self.growth_rate,
            "kernel_size": self.kernel_size,
            "bottleneck": self.bottleneck,
            "frequency_aware": self.frequency_aware,
            "damping": self.damping,
            "damp_time": self.damp_time,
            "decomposition": self.decomposition,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }
