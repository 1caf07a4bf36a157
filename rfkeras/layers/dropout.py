"""Dropout that differs between the replicas of a distributed step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from rfkeras.errors import ConfigError
from rfkeras.layers.random import ReplicaSeedGenerator


@keras.saving.register_keras_serializable(package="rfkeras")
class ReplicaDropout(keras.layers.Layer):
    """In training, sets a random share of the values to 0 and scales the others up.

    As `keras.layers.Dropout`, which under a `tf.distribute` strategy drops the same places
    on every replica; this layer drops different ones.

    Args:
        rate: Share that is dropped, 0 or more and under 1; the rest is divided by
            1 - rate.
        seed: Of the draws. Layers with equal seeds draw alike, so leave it None in a
            network: `keras.utils.set_random_seed` makes the choice repeatable.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        Any.

    Output shape:
        As the input.

    Raises:
        ConfigError: rate is out of its range.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not number or not 0.0 <= rate < 1.0:
            raise ConfigError(
                "dropout must be a number from 0 to under 1: the share of the values that "
                f"is dropped in training; 0 for none. Received: {rate!r}."
            )
        self.rate = rate
        self.seed = seed
        self.seed_generator = ReplicaSeedGenerator(seed)
        self.supports_masking = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training or self.rate == 0:
            return inputs
        return keras.random.dropout(inputs, self.rate, seed=self.seed_generator)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """See `rfkeras.receptive_field.register_rule`: nothing happens at inference."""
        return inputs

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
