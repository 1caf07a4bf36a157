"""The frequency of each row as a channel of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


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
        """See `rfkeras.receptive_field.register_rule`: the channel is no input's."""
        channels = inputs.shape[-1]
        return inputs.as_channels(-1).resized(-1, None if channels is None else channels + 1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (*input_shape[:-1], input_shape[-1] + 1)  # type: ignore[operator]
