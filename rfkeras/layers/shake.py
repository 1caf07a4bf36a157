"""Shake-Shake: branches added with random shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.layers.random import ReplicaSeedGenerator

SHARED_BY = ("sample", "batch")


@keras.saving.register_keras_serializable(package="rfkeras")
class ShakeShake(keras.layers.Layer):
    """Random convex combination of two branches, with another one for the gradient.

    In training the output is a * x1 + (1 - a) * x2 with a drawn uniformly from [0, 1), and
    the gradient reaches the branches with the shares b and 1 - b, where b is drawn
    independently. At inference both shares are 0.5. The coefficients are drawn in float32
    under every dtype policy, and differently on every replica.

    Args:
        per: "sample": coefficients of their own for each sample; "batch": one pair for
            the whole batch (of a replica).
        seed: Of the draws. Layers with equal seeds draw alike, so leave it None in a
            network: `keras.utils.set_random_seed` makes the choice repeatable.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        A list of two tensors of one shape (batch, ...).

    Output shape:
        That shape.

    Raises:
        ConfigError: `per` is unknown, or there are not two inputs of one shape.

    Example:
        >>> ShakeShake()([branch_1, branch_2], training=True)

    Reference:
        Gastaldi, "Shake-Shake regularization", arXiv 1705.07485 (there: "Shake-Shake-Image"
        for `per="sample"`).
    """

    def __init__(self, per: str = "sample", seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if per not in SHARED_BY:
            raise ConfigError(unknown_name("per", str(per), SHARED_BY))
        self.per = per
        self.seed = seed
        self.seed_generator = ReplicaSeedGenerator(seed)

    def build(self, input_shape: Sequence[Sequence[int | None]]) -> None:
        shapes = [tuple(shape) for shape in input_shape]
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise ConfigError(
                f"ShakeShake combines two tensors of one shape. Received: {shapes}."
            )

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> Any:
        first, second = inputs
        if not training:
            return (first + second) * 0.5
        difference = first - second
        forward = second + self._draw(first) * difference
        backward = second + self._draw(first) * difference
        # The value of the one, the gradient of the other.
        return backward + ops.stop_gradient(forward - backward)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """See `rfkeras.receptive_field.register_rule`."""
        first, second = inputs
        return first.joined(second)

    def _draw(self, x: Any) -> Any:
        rows = ops.shape(x)[0] if self.per == "sample" else 1
        shape = (rows, *(1 for _ in x.shape[1:]))
        share = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return ops.cast(share, x.dtype)

    def compute_output_shape(
        self, input_shape: Sequence[Sequence[int | None]]
    ) -> tuple[int | None, ...]:
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "per": self.per, "seed": self.seed}
