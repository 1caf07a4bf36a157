"""Learning rate over the steps of a run."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="rfkeras")
class HoldThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Constant at first, then linear to a final value, which it keeps.

    Args:
        learning_rate: Value up to step `hold_steps`.
        hold_steps: Steps before the decay begins.
        end_step: Step at which the final value is reached.
        final_learning_rate: Value from then on.
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
