"""From frame logits to the logits of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError
from rfkeras.tasks import MULTI_LABEL, check_task


@keras.saving.register_keras_serializable(package="rfkeras")
class ClipLogits(keras.layers.Layer):
    """Average of a map of logits over time and frequency, in float32.

    It also keeps what is needed to read its outputs wherever the model is loaded: the
    tags' names, whether tags exclude each other, and from which score a tag applies.

    Args:
        label_names: Tag of each channel; None when unknown.
        task: "multi_label": a tag's score is the sigmoid of its logit. "single_label": the
            scores are the softmax of all logits.
        thresholds: Score of each tag from which it applies; None: 0.5. May be set on the
            layer after training.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, classes).

    Output shape:
        (batch, classes).

    Raises:
        ConfigError: Unknown task, or names or thresholds differ in number from the classes.
    """

    def __init__(
        self,
        label_names: Sequence[str] | None = None,
        task: str = MULTI_LABEL,
        thresholds: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.label_names = None if label_names is None else tuple(label_names)
        self.task = check_task(task)
        self.thresholds = None if thresholds is None else tuple(float(t) for t in thresholds)

    def build(self, input_shape: Sequence[int | None]) -> None:
        if self.label_names is not None and len(self.label_names) != input_shape[-1]:
            raise ConfigError(
                f"The model has {input_shape[-1]} classes but {len(self.label_names)} "
                f"label names were given: {', '.join(self.label_names)}."
            )
        if self.thresholds is not None and len(self.thresholds) != input_shape[-1]:
            raise ConfigError(
                f"The model has {input_shape[-1]} classes but {len(self.thresholds)} "
                "thresholds were given."
            )

    def call(self, inputs: Any) -> Any:
        return ops.mean(ops.cast(inputs, "float32"), axis=(1, 2))

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """See `rfkeras.receptive_field.register_rule`."""
        return inputs.pool((1, 2))

    def scores(self, logits: Any) -> Any:
        """Scores in [0, 1] of logits (batch, classes), float32."""
        logits = ops.cast(logits, "float32")
        return ops.sigmoid(logits) if self.task == MULTI_LABEL else ops.softmax(logits)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "label_names": self.label_names,
            "task": self.task,
            "thresholds": self.thresholds,
        }


def find_head(model: Any) -> ClipLogits | None:
    """The model's `ClipLogits`, also inside of a model within it; None where it has none."""
    for layer in model.layers:
        if isinstance(layer, ClipLogits):
            return layer
        found = find_head(layer) if isinstance(layer, keras.Model) else None
        if found is not None:
            return found
    return None
