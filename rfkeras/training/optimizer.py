"""Optimizers, the learning-rate schedule, and the variables that decay."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.config.train_config import WEIGHT_DECAY, TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.utils.user_code import OPTIMIZERS


def is_kernel(variable: Any) -> bool:
    """Return whether a variable is a kernel. Only kernels decay and are pruned.

    A kernel has more than one dimension and is not a bias. (Keras keeps the two biases of a
    GRU in one variable of shape (2, 3 * units).)
    """
    name = variable.path.rpartition("/")[2]
    return len(variable.shape) > 1 and not name.endswith("bias")


@keras.saving.register_keras_serializable(package="rfkeras")
class HoldThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Constant learning rate, then linear decay to a final value.

    Args:
        learning_rate: Value until step `hold_steps`.
        hold_steps: Steps before the decay begins.
        end_step: Step at which the decay ends.
        final_learning_rate: Value from `end_step` on.
    """

    def __init__(
        self,
        learning_rate: float,
        hold_steps: int,
        end_step: int,
        final_learning_rate: float = 0.0,
    ):
        self.learning_rate = learning_rate
        self.hold_steps = hold_steps
        self.end_step = max(end_step, hold_steps + 1)
        self.final_learning_rate = final_learning_rate

    def __call__(self, step: Any) -> Any:
        progress = (ops.cast(step, "float32") - self.hold_steps) / (
            self.end_step - self.hold_steps
        )
        progress = ops.clip(progress, 0.0, 1.0)
        return self.learning_rate + progress * (self.final_learning_rate - self.learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "hold_steps": self.hold_steps,
            "end_step": self.end_step,
            "final_learning_rate": self.final_learning_rate,
        }


class _ReducedGradients(keras.optimizers.Adam):
    """Optimizer for gradients that are already summed over the replicas.

    Keras sums the gradients after it has clipped them and checked them for float16 overflow.
    With several replicas both are then wrong. `TrainingModel` sums the gradients first, and
    this class keeps Keras from doing it again.

    Some variables may train more slowly and start later than the others, see `hold_back`.
    """

    weight_decay: float | None
    _held_back: frozenset[int] = frozenset()
    _rate_scale = 1.0
    _begins_at = 0

    def hold_back(self, indices: Collection[int], rate_scale: float, begins_at: int) -> None:
        """Train some variables at a lower rate, starting at a later step.

        Adam's bias correction depends on the number of steps. Moments that start later need
        the correction counted from that step; otherwise their first hundred updates are up to
        six times too large.

        Args:
            indices: Indices of these variables among those the optimizer is built with.
            rate_scale: Their learning rate and weight decay, as a fraction of the others'.
            begins_at: First step that gives them gradients.
        """
        self._held_back = frozenset(indices)
        self._rate_scale = rate_scale
        self._begins_at = begins_at

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self._get_variable_index(variable) in self._held_back:
            learning_rate = learning_rate * self._rate_scale * self._later_correction()
        super().update_step(gradient, variable, learning_rate)

    def _later_correction(self) -> Any:
        """Return Adam's bias correction from `_begins_at` on, relative to its own."""
        if not self._begins_at:
            return 1.0
        step = ops.cast(self.iterations + 1, "float32")
        # In float16, steps that overflow are skipped and not counted, so the count may be
        # less than begins_at when the variables start.
        own = ops.maximum(step - self._begins_at, 1.0)
        return self._correction(own) / self._correction(step)

    def _correction(self, step: Any) -> Any:
        return ops.sqrt(1.0 - ops.power(self.beta_2, step)) / (
            1.0 - ops.power(self.beta_1, step)
        )

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        held = [v for v in variables if self._get_variable_index(v) in self._held_back]
        if not held or self.weight_decay is None:
            super()._apply_weight_decay(variables)
            return
        others = [v for v in variables if self._get_variable_index(v) not in self._held_back]
        super()._apply_weight_decay(others)
        decay = self.weight_decay
        try:
            self.weight_decay = decay * self._rate_scale
            super()._apply_weight_decay(held)
        finally:
            self.weight_decay = decay

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return _as_they_are(self, grads_and_vars)


@keras.saving.register_keras_serializable(package="rfkeras")
class Adam(_ReducedGradients):
    """`keras.optimizers.Adam` for `TrainingModel`."""


@keras.saving.register_keras_serializable(package="rfkeras")
class AdamW(_ReducedGradients, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` for `TrainingModel`."""


def make_optimizer(
    config: TrainConfig,
    variables: list[Any],
    steps_per_epoch: int,
    backbone: Collection[int] = (),
) -> Any:
    """Return the optimizer of a run with its learning-rate schedule, not yet built.

    Weight decay is decoupled: it is scaled by the learning rate and not part of the gradient.
    It applies only to kernels, not to biases or batch normalisation.

    Args:
        config: The run's configuration.
        variables: The trainable variables.
        steps_per_epoch: Steps per epoch.
        backbone: Indices of the variables that are frozen at first, or train more slowly.
    """
    schedule = HoldThenLinear(
        config.learning_rate,
        hold_steps=round(config.hold_until_epoch * steps_per_epoch),
        end_step=round(config.decay_until_epoch * steps_per_epoch),
        final_learning_rate=config.final_learning_rate,
    )
    optimizer: Any
    if config.optimizer == "adam":
        optimizer = Adam(schedule, global_clipnorm=config.clip_norm)
    elif config.optimizer == "adamw":
        decay = WEIGHT_DECAY if config.weight_decay is None else config.weight_decay
        optimizer = AdamW(schedule, weight_decay=decay, global_clipnorm=config.clip_norm)
        others = [v for v in variables if not is_kernel(v)]
        optimizer.exclude_from_weight_decay(var_list=others)
    else:
        return _other_optimizer(config, schedule)
    begins_at = (config.unfreeze_after or 0) * steps_per_epoch
    optimizer.hold_back(backbone, config.trunk_lr_scale, begins_at)
    return optimizer


def _other_optimizer(config: TrainConfig, schedule: Any) -> Any:
    """Return an optimizer of Keras or of the user for gradients that are summed already.

    Raises:
        ConfigError: It is no optimizer, or the configuration has options that only work with
            Adam.
    """
    name = config.optimizer
    if config.freeze != "none" or config.trunk_lr_scale != 1.0:
        raise ConfigError(
            "--freeze and --trunk-lr-scale need --optimizer adam or adamw. Received: "
            f"--optimizer {name}."
        )
    if config.precision == "mixed_float16":
        raise ConfigError(
            "--precision mixed_float16 needs --optimizer adam or adamw; mixed_bfloat16 works "
            f"with all. Received: --optimizer {name}."
        )
    part = OPTIMIZERS[name]
    if part is None:
        made = keras.optimizers.get({"class_name": name, "config": {"learning_rate": schedule}})
    else:
        made = part if isinstance(part, keras.optimizers.Optimizer) else part(schedule)
    if not isinstance(made, keras.optimizers.Optimizer):
        raise ConfigError(
            f"Optimizer {name!r} must be a keras.optimizers.Optimizer or a function of the "
            f"learning-rate schedule that returns one. Received: {type(made).__name__}."
        )
    kind: Any = type(made)
    # Keras would sum the gradients over the replicas a second time.
    reduced: Any = type(kind.__name__, (kind,), {"_all_reduce_sum_gradients": _as_they_are})
    settings = made.get_config()
    if config.clip_norm is not None:
        settings["global_clipnorm"] = config.clip_norm
    return reduced.from_config(settings)


def _as_they_are(self: Any, grads_and_vars: Any) -> list[Any]:
    return list(grads_and_vars)
