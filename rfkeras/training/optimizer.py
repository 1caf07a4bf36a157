"""Adam and AdamW for gradients that are summed over the replicas before the optimiser."""

from __future__ import annotations

from typing import Any

import keras

from rfkeras.config import WEIGHT_DECAY, TrainConfig
from rfkeras.training.kernels import is_kernel
from rfkeras.training.schedule import HoldThenLinear


class _ReducedGradients:
    """An optimiser that takes gradients which are the same on every replica already.

    Keras sums gradients over the replicas after it has clipped them, and after it has
    looked for infinities in float16, both of which are then wrong with several replicas.
    `TrainingModel` sums them first; this keeps Keras from doing it again.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return list(grads_and_vars)


@keras.saving.register_keras_serializable(package="rfkeras")
class Adam(_ReducedGradients, keras.optimizers.Adam):
    """`keras.optimizers.Adam` for `TrainingModel`."""


@keras.saving.register_keras_serializable(package="rfkeras")
class AdamW(_ReducedGradients, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` for `TrainingModel`."""


def make_optimizer(config: TrainConfig, variables: list[Any], steps_per_epoch: int) -> Any:
    """The optimiser of a run, not yet built.

    Weight decay is decoupled (scaled by the learning rate, not part of the gradient) and
    touches kernels alone: neither biases nor the scale and offset of batch normalisation.

    Args:
        config: The run's configuration.
        variables: The trainable variables.
        steps_per_epoch: Steps in an epoch.
    """
    schedule = HoldThenLinear(
        config.learning_rate,
        hold_steps=round(config.hold_until_epoch * steps_per_epoch),
        end_step=round(config.decay_until_epoch * steps_per_epoch),
        final_learning_rate=config.final_learning_rate,
    )
    if config.optimizer == "adam":
        return Adam(schedule, global_clipnorm=config.clip_norm)
    decay = WEIGHT_DECAY if config.weight_decay is None else config.weight_decay
    optimizer = AdamW(schedule, weight_decay=decay, global_clipnorm=config.clip_norm)
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if not is_kernel(v)])
    return optimizer
