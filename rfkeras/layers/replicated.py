"""Batch normalisation by TensorFlow's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError

EPSILON = 1e-5
MOMENTUM = 0.9  # of the old value; PyTorch calls the same thing momentum 0.1


@keras.saving.register_keras_serializable(package="rfkeras")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over the last axis, fast and right under several replicas.

    The same weights, names and numbers as `keras.layers.BatchNormalization`, with two
    differences. On the TensorFlow backend, maps of four axes go through the fused kernel,
    which reads the map once instead of once per elementary operation. And the moving
    statistics are averaged over the replicas of a `tf.distribute` strategy, where Keras
    keeps one set per replica and saves that of the first. (The average of the replicas'
    variances is a little under the variance of the whole batch, which would also count
    how far the replicas' means lie apart.)

    Args:
        momentum: Share of the old moving statistics kept at each step.
        epsilon: Added to the variance.
        **kwargs: As for `keras.layers.BatchNormalization`.

    Input shape:
        (batch, ..., channels).

    Output shape:
        As the input.
    """

    def __init__(self, momentum: float = MOMENTUM, epsilon: float = EPSILON, **kwargs: Any):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("trainable", True):
            kwargs["aggregation"] = "mean"
        return super().add_weight(*args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not self._fused_kernel_applies(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        use_batch = bool(training and self.trainable)
        outputs, mean, variance = self._fused(inputs, use_batch)
        if use_batch:
            kept = self.momentum
            self.moving_mean.assign(self.moving_mean * kept + mean * (1.0 - kept))
            self.moving_variance.assign(self.moving_variance * kept + variance * (1.0 - kept))
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
        """(outputs, batch mean, batch variance) of the fused kernel."""
        import tensorflow as tf

        inputs = ops.cast(inputs, self.compute_dtype)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.convert_to_tensor(self.gamma),
            offset=ops.convert_to_tensor(self.beta),
            mean=[] if use_batch else ops.convert_to_tensor(self.moving_mean),
            variance=[] if use_batch else ops.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            exponential_avg_factor=1.0,
            data_format="NHWC",
            is_training=use_batch,
        )
        # The kernel divides by n - 1, Keras by n: undo it, so that both agree.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), variance.dtype)
        return outputs, mean, variance * (tf.maximum(count, 2.0) - 1.0) / count


REPLICA_STRIDE = 1_000_003  # a prime: neighbouring replicas' seeds lie far apart


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A `keras.random.SeedGenerator` whose draws also depend on the replica.

    Under a `tf.distribute` strategy Keras' own generator gives every replica the same
    numbers, so that a batch divided over two devices would hold every random choice twice.
    This one adds the replica's number to the seed. On one device, and on Keras' other
    backends, it draws what Keras' generator draws.

    Args:
        seed: Whole number; None takes one from Python's generator, which
            `keras.utils.set_random_seed` seeds.
        **kwargs: As for `keras.random.SeedGenerator`.
    """

    def next(self, ordered: bool = True) -> Any:
        state = super().next(ordered=ordered)
        if keras.backend.backend() != "tensorflow":
            return state
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None:  # outside of the replicas: one draw for all
            return state
        replica = tf.cast(context.replica_id_in_sync_group, state.dtype)
        return state + tf.stack([replica * REPLICA_STRIDE, tf.zeros_like(replica)])


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
        """See `rfkeras.rf.register_rule`: nothing happens at inference."""
        return inputs

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
