"""One branch of a residual block: conv, BN, ReLU, conv, BN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.layers.conv import Pair, he_normal, make_conv
from rfkeras.layers.frequency import FrequencyChannel
from rfkeras.layers.normalization import BatchNormalization

INITIALIZATIONS = ("published", "he")


def block_initializers(name: str, depth: int) -> tuple[Any, Any]:
    """Initialisers of a branch's two convolutions.

    Raises:
        ConfigError: name is neither "published" nor "he".
    """
    if name == "published":
        return he_normal("fan_out", 2.0 / depth), keras.initializers.Zeros()
    if name == "he":
        return he_normal("fan_out"), he_normal("fan_out")
    raise ConfigError(unknown_name("initialization", name, INITIALIZATIONS))


class ResidualBranch(keras.layers.Layer):
    """What a `ResidualBlock` adds to its shortcut; made by the block alone."""

    def __init__(
        self,
        filters: int,
        kernel_size: tuple[Pair, Pair],
        initializers: tuple[Any, Any],
        frequency_aware: bool,
        batch_norm: dict[str, float],
        conv: dict[str, Any],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        policy = self.dtype_policy
        self.frequency = (
            FrequencyChannel(dtype=policy, name="frequency") if frequency_aware else None
        )
        self.conv1, self.conv2 = (
            make_conv(
                filters, kernel, initializer=init, dtype=policy, name=f"conv{number}", **conv
            )
            for number, (kernel, init) in enumerate(
                zip(kernel_size, initializers, strict=True), start=1
            )
        )
        self.bn1 = BatchNormalization(**batch_norm, dtype=policy, name="bn1")
        self.bn2 = BatchNormalization(**batch_norm, dtype=policy, name="bn2")
        self.relu = keras.layers.ReLU(dtype=policy, name="relu")

    def build(self, input_shape: Sequence[int | None]) -> None:
        output_shape = (*input_shape[:-1], self.filters)
        for layer, shape in ((self.conv1, tuple(input_shape)), (self.conv2, output_shape)):
            if self.frequency is not None:
                shape = self.frequency.compute_output_shape(shape)
            layer.build(shape)
        self.bn1.build(output_shape)
        self.bn2.build(output_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = self.conv1(self._with_frequency(inputs))
        x = self.relu(self.bn1(x, training=training))
        return self.bn2(self.conv2(self._with_frequency(x)), training=training)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """See `rfkeras.receptive_field.register_rule`."""
        x = inputs
        for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
            x = x if self.frequency is None else call.apply(self.frequency, x)
            x = call.apply(bn, call.apply(conv, x))
        return x  # the ReLU between changes nothing

    def _with_frequency(self, x: Any) -> Any:
        return x if self.frequency is None else self.frequency(x)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.filters)
