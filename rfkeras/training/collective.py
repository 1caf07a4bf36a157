"""What Keras needs to train one model in several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from rfkeras.errors import ConfigError

TESTED_KERAS = "3.13."


class CollectiveModel(keras.Model):
    """A model whose `fit` also works under `tf.distribute.MultiWorkerMirroredStrategy`.

    Keras 3 does not support that strategy (keras-team/keras issue 20585): its `fit` averages
    what a step returns along a batch axis that a loss does not have, and builds the model
    from values that lie in several processes. Here a step's results are averaged over the
    replicas, and the model must be built, and its optimiser too, before `fit`. Data must
    come from `strategy.distribute_datasets_from_function`. Under other strategies nothing
    changes.

    Raises:
        ConfigError: `fit` by several workers with a version of Keras that this was not
            tested with.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if not is_collective(self.distribute_strategy):
            super()._maybe_symbolic_build(iterator, data_batch)

    def _make_function(self, step_function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        strategy = self.distribute_strategy
        if not is_collective(strategy):
            return super()._make_function(step_function)  # type: ignore[no-any-return]
        if not keras.__version__.startswith(TESTED_KERAS):
            raise ConfigError(
                f"Training by several workers replaces parts of Keras and was tested with "
                f"Keras {TESTED_KERAS}x. Received: {keras.__version__}. Install "
                f"'keras>={TESTED_KERAS}0,<3.14', or train in one process."
            )

        def step(iterator: Any) -> dict[str, Any]:
            results = strategy.run(step_function, args=(next(iterator),))
            mean = tf.distribute.ReduceOp.MEAN
            return {name: strategy.reduce(mean, v, axis=None) for name, v in results.items()}

        compiled: Callable[[Any], Any] = tf.function(step, reduce_retracing=True)
        return compiled


def is_collective(strategy: Any) -> bool:
    """Whether a strategy spans several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
