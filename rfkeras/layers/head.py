"""From frame logits to the logits of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.tasks import MULTI_LABEL, check_task

POOLINGS = ("average", "max", "log_mean_exp", "attention")


def pool(logits: Any, pooling: str, axes: tuple[int, ...], log_weights: Any = None) -> Any:
    """Logits pooled over some axes.

    Args:
        logits: Float tensor of at least as many dimensions as axes.
        pooling: One of `POOLINGS`.
        axes: To pool over.
        log_weights: Of attention: logarithm of each logit's weight, up to a constant.
    """
    if pooling == "average":
        return ops.mean(logits, axis=axes)
    if pooling == "max":
        return ops.max(logits, axis=axes)
    if pooling == "log_mean_exp":
        count = ops.ones_like(logits)
        return ops.logsumexp(logits, axis=axes) - ops.log(ops.sum(count, axis=axes))
    weights = ops.exp(log_weights - ops.max(log_weights, axis=axes, keepdims=True))
    return ops.sum(weights * logits, axis=axes) / ops.sum(weights, axis=axes)


@keras.saving.register_keras_serializable(package="rfkeras")
class ClipLogits(keras.layers.Layer):
    """One logit a tag, of a map of logits over time and frequency, in float32.

    It also keeps what is needed to read its outputs wherever the model is loaded: the
    tags' names, whether tags exclude each other, and from which score a tag applies.

    Args:
        label_names: Tag of each channel; None when unknown.
        task: "multi_label": a tag's score is the sigmoid of its logit. "single_label": the
            scores are the softmax of all logits.
        thresholds: Score of each tag from which it applies; None: 0.5. May be set on the
            layer after training.
        pooling: How the map becomes one logit a tag: "average" (the paper's), "max",
            "log_mean_exp" (between the two) or "attention" (learnt weights of positions).
        frames: Return a logit for every frame, pooled over frequency alone.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, classes).

    Output shape:
        (batch, classes); with `frames`, (batch, time, classes).

    Raises:
        ConfigError: Unknown task or pooling, or names or thresholds differ in number from
            the classes.
    """

    def __init__(
        self,
        label_names: Sequence[str] | None = None,
        task: str = MULTI_LABEL,
        thresholds: Sequence[float] | None = None,
        pooling: str = "average",
        frames: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.label_names = None if label_names is None else tuple(label_names)
        self.task = check_task(task)
        self.thresholds = None if thresholds is None else tuple(float(t) for t in thresholds)
        if pooling not in POOLINGS:
            raise ConfigError(unknown_name("pooling", str(pooling), POOLINGS))
        self.pooling = pooling
        self.frames = frames

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
        if self.pooling == "attention":
            n_classes = input_shape[-1]
            self.attention_kernel = self.add_weight(
                shape=(n_classes, n_classes), initializer="zeros", name="attention_kernel"
            )

    def call(self, inputs: Any) -> Any:
        logits = ops.cast(inputs, "float32")
        axes = (2,) if self.frames else (1, 2)
        return pool(logits, self.pooling, axes, self._log_weights(logits))

    def frame_logits(self, inputs: Any) -> tuple[Any, Any]:
        """A logit for every frame, and how much it weighs in that of the clip.

        Args:
            inputs: The layer's own input, (batch, time, frequency, classes).

        Returns:
            Logits (batch, time, classes), and of attention the logarithm of their weights
            up to a constant, in the same shape; None where all frames weigh alike.
        """
        logits = ops.cast(inputs, "float32")
        weights = self._log_weights(logits)
        summed = None if weights is None else ops.logsumexp(weights, axis=2)
        return pool(logits, self.pooling, (2,), weights), summed

    def clip_logits(self, frame_logits: Any, log_weights: Any = None) -> Any:
        """Logits of the clip, of what `frame_logits` returns: (batch, classes)."""
        return pool(frame_logits, self.pooling, (1,), log_weights)

    def _log_weights(self, logits: Any) -> Any:
        if self.pooling != "attention":
            return None
        return ops.matmul(logits, self.attention_kernel)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """See `rfkeras.rf.register_rule`."""
        return inputs.pool((2,) if self.frames else (1, 2))

    def scores(self, logits: Any) -> Any:
        """Scores in [0, 1] of logits (..., classes), float32."""
        logits = ops.cast(logits, "float32")
        return ops.sigmoid(logits) if self.task == MULTI_LABEL else ops.softmax(logits)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        time = (input_shape[1],) if self.frames else ()
        return (input_shape[0], *time, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "label_names": self.label_names,
            "task": self.task,
            "thresholds": self.thresholds,
            "pooling": self.pooling,
            "frames": self.frames,
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
