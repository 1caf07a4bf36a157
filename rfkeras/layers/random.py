"""Random numbers that differ between the replicas of a distributed step."""

from __future__ import annotations

from typing import Any

import keras

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
