"""The head, which pools a map of logits over time and frequency to clip logits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.layers.composite import check_map
from rfkeras.tasks import MULTI_LABEL, check_task
from rfkeras.utils.label_names import check_label_names, visible_label_name
from rfkeras.utils.model_graph import Place, layer_graph, sublayers

POOLINGS = ("average", "max", "log_mean_exp", "attention")


def pool(logits: Any, pooling: str, axes: tuple[int, ...], log_weights: Any = None) -> Any:
    """Pool logits over some axes.

    Args:
        logits: Float tensor with at least as many dimensions as axes.
        pooling: One of `POOLINGS`.
        axes: Axes to pool over.
        log_weights: For attention only: logarithm of each logit's weight, up to a constant.
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
    """Pools a map of logits over time and frequency to one logit per tag, in float32.

    It also stores what is needed to interpret the outputs wherever the model is loaded: the
    names of the tags, whether they are mutually exclusive, and their thresholds.

    Args:
        label_names: Tag of each channel; None if unknown. Each is one line of visible text
            and differs from the others.
        task: "multi_label" (scores are sigmoids of the logits) or "single_label" (scores
            are the softmax of all logits).
        thresholds: Threshold of each tag: it applies if its score is at least this high.
            None: 0.5. Can be set on the layer after training.
        pooling: "average" (as in the paper), "max", "log_mean_exp" (between the two) or
            "attention" (learns the weights of positions).
        frames: Return logits for every frame, pooled over frequency only.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, classes).

    Output shape:
        (batch, classes); with `frames`, (batch, time, classes).

    Raises:
        ConfigError: Unknown task or pooling, names that are not allowed, or the number of
            names or thresholds differs from the number of classes.

    Example:
        >>> head = ClipLogits(label_names=("flute", "voice", "organ"))
        >>> head(np.zeros((8, 50, 20, 3), "float32")).shape
        TensorShape([8, 3])
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
        self.label_names = None if label_names is None else _checked_names(label_names)
        self.task = check_task(task)
        self.thresholds = None if thresholds is None else tuple(float(t) for t in thresholds)
        if pooling not in POOLINGS:
            raise ConfigError(unknown_name("pooling", str(pooling), POOLINGS))
        self.pooling = pooling
        self.frames = frames

    def build(self, input_shape: Sequence[int | None]) -> None:
        check_map(self, input_shape)
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
        """Return the logits of every frame, and their weights in the clip's logits.

        Args:
            inputs: The layer's input, (batch, time, frequency, classes).

        Returns:
            Logits (batch, time, classes). For attention also the logarithm of their
            weights up to a constant, in the same shape; otherwise None, because all frames
            have the same weight.
        """
        logits = ops.cast(inputs, "float32")
        weights = self._log_weights(logits)
        summed = None if weights is None else ops.logsumexp(weights, axis=2)
        return pool(logits, self.pooling, (2,), weights), summed

    def clip_logits(self, frame_logits: Any, log_weights: Any = None) -> Any:
        """Pool what `frame_logits` returns to the clip's logits, (batch, classes)."""
        return pool(frame_logits, self.pooling, (1,), log_weights)

    def _log_weights(self, logits: Any) -> Any:
        if self.pooling != "attention":
            return None
        return ops.matmul(logits, self.attention_kernel)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """Return what the output sees; see `rfkeras.rf.register_rule`."""
        return inputs.pool((2,) if self.frames else (1, 2))

    def scores(self, logits: Any) -> Any:
        """Convert logits (..., classes) to scores in [0, 1], float32."""
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

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        names = config.get("label_names")
        if names is None:
            return super().from_config(config)
        return super().from_config({**config, "label_names": _repaired_names(names)})


def _checked_names(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            "ClipLogits: label_names must be a sequence of texts, one per class. "
            f"Received: {names!r}."
        )
    try:
        return check_label_names(names)
    except ConfigError as error:
        raise ConfigError(f"ClipLogits: label_names: {error}") from error


def _repaired_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names in a model file; replace those that are not allowed, with a note.

    Version 0.1.0 did not check them, and a file must open so that its names can be set.
    """
    try:
        return check_label_names(names)
    except ConfigError as error:
        print(
            f"Note: invalid tag names in the model were replaced. {error}",
            file=sys.stderr,
        )
    repaired: list[str] = []
    for place, name in enumerate(names):
        try:
            clean = visible_label_name(" ".join(name.split()))
        except ConfigError:
            clean = f"class_{place}"
        unique, number = clean, 2
        while unique in repaired:
            unique, number = f"{clean} ({number})", number + 1
        repaired.append(unique)
    return tuple(repaired)


def find_head(model: Any) -> ClipLogits | None:
    """Return the model's `ClipLogits`, at any depth; None if there is none.

    Of several, this is the one that computes the model's (first) output, or else the last.
    """
    heads = sublayers(model, ClipLogits)
    if len(heads) < 2:
        return heads[0] if heads else None
    graph = layer_graph(model)
    if graph is not None:
        layer, _ = Place(graph.outputs[0]).producer()
        if isinstance(layer, ClipLogits):
            return layer
    return heads[-1]
