"""Workarounds for faults and gaps of Keras 3 and TensorFlow, all in one place.

Each entry names the fault, the versions it was seen in and the upstream issue if there is
one. When a release fixes a fault, delete its entry. This module imports Keras, so only rooms
that use Keras may import it, and TensorFlow only where it is needed, so that layers run on
every Keras backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from rfkeras.errors import ConfigError

# Fault: under `tf.distribute`, `keras.random.SeedGenerator` gives every replica the same
# numbers, so a batch divided over two devices gets every random choice twice.
# Seen in Keras 3.13 with TensorFlow 2.16 and 2.20; no upstream issue.

REPLICA_STRIDE = 1_000_003  # a prime, so that the seeds of neighbouring replicas are far apart


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A `keras.random.SeedGenerator` that draws different numbers on each replica.

    Under a `tf.distribute` strategy, Keras' own generator gives every replica the same
    numbers. This one adds the replica's number to the seed. On a single device, and on
    Keras' other backends, it draws the same numbers as Keras' generator.

    It takes the arguments of `keras.random.SeedGenerator`. Without a seed it draws one from
    Python's generator, which `keras.utils.set_random_seed` seeds.
    """

    def next(self, ordered: bool = True) -> Any:
        state = super().next(ordered=ordered)
        if keras.backend.backend() != "tensorflow":
            return state
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None:  # not inside a replica: one draw for all
            return state
        replica = tf.cast(context.replica_id_in_sync_group, state.dtype)
        return state + tf.stack([replica * REPLICA_STRIDE, tf.zeros_like(replica)])


# Fault: `keras.layers.BatchNormalization` creates its moving statistics with
# `aggregation="none"`, so each replica keeps its own and saving stores those of the first.
# `synchronized=True` fails with XLA inside a replica.
# Seen in Keras 3.13 with TensorFlow 2.16 and 2.20; no upstream issue.


def average_over_replicas(weight_options: dict[str, Any]) -> dict[str, Any]:
    """Return options of `Layer.add_weight` that average non-trainable weights over replicas."""
    if weight_options.get("trainable", True):
        return weight_options
    return {**weight_options, "aggregation": "mean"}


# Fault: if the length of a finite data set is unknown, Keras runs one more step at the end of
# every epoch. The optimizer counts it and decays the weights, and the loss is reported wrongly.
# Seen in Keras 3.13; no upstream issue.


def with_length(dataset: Any, length: int) -> Any:
    """Return a `tf.data` data set with a known number of elements."""
    import tensorflow as tf

    return dataset.apply(tf.data.experimental.assert_cardinality(length))


# Fault: `fit` does not work under MultiWorkerMirroredStrategy.
# keras-team/keras issue 20585; seen in Keras 3.13.

TESTED_KERAS = "3.13."


class CollectiveModel(keras.Model):
    """A model whose `fit` also works under `tf.distribute.MultiWorkerMirroredStrategy`.

    Keras 3 does not support this strategy: its `fit` averages the results of a step along a
    batch axis that a loss does not have, and builds the model from values in several
    processes. This class averages the results of a step over the replicas. Model and
    optimizer must be built before `fit`, and the data must come from
    `strategy.distribute_datasets_from_function`. With other strategies nothing changes.

    Raises:
        ConfigError: `fit` is called with several workers and an untested version of Keras.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if not _is_collective(self.distribute_strategy):
            super()._maybe_symbolic_build(iterator, data_batch)

    def _make_function(self, step_function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        strategy = self.distribute_strategy
        if not _is_collective(strategy):
            return super()._make_function(step_function)  # type: ignore[no-any-return]
        if not keras.__version__.startswith(TESTED_KERAS):
            raise ConfigError(
                f"Training with several workers replaces parts of Keras and was only tested "
                f"with Keras {TESTED_KERAS}x. Received: {keras.__version__}. Install "
                f"'keras>={TESTED_KERAS}0,<3.14', or train in one process."
            )
        import tensorflow as tf

        def step(iterator: Any) -> dict[str, Any]:
            results = strategy.run(step_function, args=(next(iterator),))
            mean = tf.distribute.ReduceOp.MEAN
            return {name: strategy.reduce(mean, v, axis=None) for name, v in results.items()}

        compiled: Callable[[Any], Any] = tf.function(step, reduce_retracing=True)
        return compiled


def _is_collective(strategy: Any) -> bool:
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


# Gap: Keras has no public access to the graph of a functional or Sequential model.
# Private attributes of Keras 3.13.


def sequential_graph(model: keras.Sequential) -> Any:
    """Return the graph of a Sequential model; None if the model is not built."""
    return getattr(model, "_functional", None)


def graph_nodes(graph: Any) -> list[Any]:
    """Return the nodes of a graph, inputs included, in the order of computation."""
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
