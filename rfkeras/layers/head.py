"""From frame logits to the logits of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError


@keras.saving.register_keras_serializable(package="rfkeras")
class ClipLogits(keras.layers.Layer):
    """Average of a map of logits over time and frequency, in float32.

    Args:
        label_names: Tag of each channel, kept with the model so that its outputs can be
            named wherever it is loaded; None when unknown.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, classes).

    Output shape:
        (batch, classes).

    Raises:
        ConfigError: The number of names differs from the number of classes.
    """

    def __init__(self, label_names: Sequence[str] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.label_names = None if label_names is None else tuple(label_names)

    def build(self, input_shape: Sequence[int | None]) -> None:
        if self.label_names is not None and len(self.label_names) != input_shape[-1]:
            raise ConfigError(
                f"The model has {input_shape[-1]} classes but {len(self.label_names)} "
                f"label names were given: {', '.join(self.label_names)}."
            )

    def call(self, inputs: Any) -> Any:
        return ops.mean(ops.cast(inputs, "float32"), axis=(1, 2))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_names": self.label_names}
