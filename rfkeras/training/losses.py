"""Losses with masked labels, and class weights for rare tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.tasks import MULTI_LABEL
from rfkeras.utils.user_code import AUTO_LOSS, LOSSES

LARGEST_WEIGHT = 20.0  # so that a tag with a handful of clips does not dominate the gradient

Array = NDArray[Any]


@keras.saving.register_keras_serializable(package="rfkeras")
class MaskedBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy on logits, one value per tag.

    Pass the mask as `sample_weight`, in the shape of the labels. The loss of a batch is the
    sum over the known labels, divided by the number of all entries, known or not. Every
    known label therefore has the same weight, and the gradient of a batch does not depend on
    how the batch is split over replicas. Labels may be between 0 and 1.

    Args:
        reduction: As in `keras.losses.Loss`.
        name: As in `keras.losses.Loss`.
        **kwargs: As in `keras.losses.Loss`.
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "masked_binary_crossentropy",
        **kwargs: Any,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits, labels = _checked(self.name, y_pred, y_true)
        # max(x, 0) - x * z + log(1 + exp(-|x|)): finite for every logit.
        return ops.relu(logits) - logits * labels + ops.log1p(ops.exp(-ops.abs(logits)))


@keras.saving.register_keras_serializable(package="rfkeras")
class SoftmaxCrossentropy(keras.losses.Loss):
    """Cross-entropy of the softmax of logits, one value per class.

    The value of a class is -label * log(probability), multiplied by the number of classes.
    The mean over all entries of a batch is then the mean over its clips of the usual
    cross-entropy. Labels may be between 0 and 1 (mixup, smoothing). `sample_weight` in the
    shape of the labels weights each class of a blended label separately.

    Args:
        reduction: As in `keras.losses.Loss`.
        name: As in `keras.losses.Loss`.
        **kwargs: As in `keras.losses.Loss`.
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "softmax_crossentropy",
        **kwargs: Any,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits, labels = _checked(self.name, y_pred, y_true)
        return -labels * ops.log_softmax(logits, axis=-1) * float(logits.shape[-1])


def _checked(loss: str, logits: Any, labels: Any) -> tuple[Any, Any]:
    """Return logits and labels as float32.

    Raises:
        ConfigError: Their shapes differ. Broadcasting would compare the wrong entries.
    """
    logits, labels = ops.cast(logits, "float32"), ops.cast(labels, "float32")
    shapes = tuple(logits.shape), tuple(labels.shape)
    sizes_differ = any(
        None not in (one, other) and one != other for one, other in zip(*shapes, strict=False)
    )
    if len(shapes[0]) != len(shapes[1]) or sizes_differ:
        raise ConfigError(
            f"{loss} needs labels of the shape of the logits, (batch, classes), with a value "
            "from 0 to 1 for every class. Convert class numbers with keras.ops.one_hot(labels, "
            f"classes). Received: labels {shapes[1]}, logits {shapes[0]}."
        )
    return logits, labels


def loss_for(task: str) -> keras.losses.Loss:
    """Return the loss of a task, "multi_label" or "single_label"."""
    return SoftmaxCrossentropy() if task == "single_label" else MaskedBinaryCrossentropy()


class UsersLoss(keras.losses.Loss):
    """A loss of the user, or of Keras, on labels of which some may be unknown.

    Unknown labels are left out by `sample_weight` in the shape of the labels, as in
    `MaskedBinaryCrossentropy`, so the loss has to return one value per tag. Losses of Keras
    that average over the tags are called for each tag separately.

    Args:
        loss: A `keras.losses.Loss`, or a function of labels and logits, (batch, classes) each,
            that returns (batch, classes) or, for single-label data, (batch,).
        task: "multi_label" or "single_label".

    Raises:
        ConfigError: The loss expects probabilities instead of logits, or returns another shape.
    """

    def __init__(self, loss: Any, task: str):
        name = getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__)
        super().__init__(name=name)
        if getattr(loss, "from_logits", True) is False:
            raise ConfigError(
                f"Loss {name!r} expects probabilities, but models return logits. Create it "
                "with from_logits=True."
            )
        self._values = loss.call if isinstance(loss, keras.losses.Loss) else loss
        self._per_tag = task == MULTI_LABEL and type(loss).__name__ in _AVERAGED_BY_KERAS
        self._task = task

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits, labels = _checked(self.name, y_pred, y_true)
        if self._per_tag:
            return self._values(labels[..., None], logits[..., None])
        values = ops.convert_to_tensor(self._values(labels, logits))
        allowed = [2] if self._task == MULTI_LABEL else [1, 2]
        if len(values.shape) not in allowed or values.shape[1:] not in ((), labels.shape[1:]):
            wanted = "(batch, classes)" if allowed == [2] else "(batch, classes) or (batch,)"
            raise ConfigError(
                f"Loss {self.name!r} must return {wanted}, one value per "
                f"{'tag' if allowed == [2] else 'class or clip'}, because rfkeras leaves out "
                f"unknown labels and takes the mean. Received: shape {tuple(values.shape)}."
            )
        return values

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if sample_weight is not None and self._task != MULTI_LABEL:
            values = self.call(y_true, y_pred)
            if len(values.shape) == 1:  # the weight of a clip is that of its class
                sample_weight = ops.sum(ops.cast(y_true, "float32") * sample_weight, axis=-1)
        return super().__call__(y_true, y_pred, sample_weight)


# Losses of Keras that are means of one value per tag.
_AVERAGED_BY_KERAS = (
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "Hinge",
    "Huber",
    "LogCosh",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SquaredHinge",
)


def make_loss(name: str, task: str) -> keras.losses.Loss:
    """Return a loss by its name.

    Args:
        name: "auto" for that of the task, or a name given to `register_loss`.
        task: "multi_label" or "single_label".

    Raises:
        ConfigError: There is no such loss, or it expects probabilities.
    """
    if name == AUTO_LOSS:
        return loss_for(task)
    part = LOSSES[name]
    return UsersLoss(part() if isinstance(part, type) else part, task)


def first_logits(labels: NDArray[Any], mask: NDArray[Any], task: str) -> NDArray[np.float32]:
    """Return logits that correspond to the frequencies of the tags, smoothed by half a clip.

    Args:
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known.
        task: "multi_label" or "single_label".

    Returns:
        (classes,). Multi-label: the log-odds of each tag among its known labels.
        Single-label: the log of each class's share.
    """
    positives = (labels * mask).sum(axis=0) + 0.5
    if task == "single_label":
        return np.asarray(np.log(positives / positives.sum()), np.float32)
    negatives = ((1 - labels) * mask).sum(axis=0) + 0.5
    return np.asarray(np.log(positives / negatives), np.float32)


def class_weights(
    choice: str | Mapping[str, float],
    labels: Array,
    mask: Array,
    label_names: Sequence[str],
    task: str,
) -> NDArray[np.float32] | None:
    """Return the weight of each tag; None if all weights are 1.

    For tags, "balanced" gives positives as much weight as negatives: the weight is the
    number of known negatives divided by the number of positives, limited to 1/20 to 20. (A
    tag without positives gets 20, which has no effect.) For classes that exclude each other
    the formula is that of scikit-learn, clips / (classes * clips of the class). A class
    without clips gets 1.

    Args:
        choice: "none", "balanced", or weights by tag. Tags that are not listed get 1.
        labels: (clips, classes) of 0 and 1, of the training split.
        mask: (clips, classes), 1 where the label is known.
        label_names: Tag of each column.
        task: "multi_label": the weights apply to positive labels. "single_label": they apply
            to the clips of a class.

    Raises:
        ConfigError: A weight is given for an unknown tag.
    """
    if isinstance(choice, Mapping):
        for name in choice:
            if name not in label_names:
                raise ConfigError(unknown_name("tag in class_weights", name, label_names))
        return np.array([choice.get(name, 1.0) for name in label_names], np.float32)
    if choice == "none":
        return None
    positives = (labels * mask).sum(axis=0)
    if task == "single_label":
        balanced = len(labels) / (labels.shape[1] * np.maximum(positives, 1))
        return np.asarray(np.where(positives > 0, balanced, 1.0), np.float32)
    negatives = ((1 - labels) * mask).sum(axis=0)
    ratio = negatives / np.maximum(positives, 1e-9)
    return np.asarray(np.clip(ratio, 1 / LARGEST_WEIGHT, LARGEST_WEIGHT), np.float32)


def apply_class_weights(labels: Any, mask: Any, weights: Any, task: str) -> Any:
    """Return the mask multiplied by the class weights, (batch, classes).

    Apply this before mixup, to the labels of single clips. Mixup then blends weights and
    labels so that each clip's label keeps its own weight.

    Args:
        labels: (batch, classes) of 0 and 1.
        mask: (batch, classes), 1 where the label is known.
        weights: (classes,) from `class_weights`.
        task: "multi_label" or "single_label".
    """
    if task == "single_label":
        return mask * weights
    return mask * (1.0 + labels * (ops.convert_to_tensor(weights) - 1.0))
