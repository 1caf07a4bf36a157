"""Weights that make rare tags count as much as frequent ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, unknown_name

LARGEST = 20.0  # so that no tag of a handful of clips rules the gradient

Array = NDArray[Any]


def class_weights(
    choice: str | Mapping[str, float],
    labels: Array,
    mask: Array,
    label_names: Sequence[str],
    task: str,
) -> NDArray[np.float32] | None:
    """Weight of each tag, or None where all are 1.

    "balanced" means, for tags, that positives weigh as much as negatives: the weight is
    the number of known negatives over that of positives, kept within 1/20 and 20. (A tag
    without a positive gets 20, which then has nothing to weigh.) For classes that exclude
    each other it is scikit-learn's formula, clips / (classes * clips of the class); a
    class without a clip gets 1.

    Args:
        choice: "none", "balanced", or weights by tag; tags not named there get 1.
        labels: (clips, classes) of 0 and 1, of the training split.
        mask: (clips, classes), 1 where the label is known.
        label_names: Tag of each column.
        task: "multi_label": weights of the positive labels. "single_label": weights of
            the clips of a class.

    Raises:
        ConfigError: A weight for a tag that does not exist.
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
    return np.asarray(np.clip(ratio, 1 / LARGEST, LARGEST), np.float32)


def weigh(labels: Any, mask: Any, weights: Any, task: str) -> Any:
    """Mask with the weights of the tags in it: (batch, classes).

    To be applied to the labels of single clips, before mixup: mixup then blends weights and
    labels in such a way that each clip's label keeps its own weight.
    """
    if task == "single_label":
        return mask * weights
    return mask * (1.0 + labels * (ops.convert_to_tensor(weights) - 1.0))


@keras.saving.register_keras_serializable(package="rfkeras")
class MaskedBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy on logits, one value a tag.

    The mask goes in as `sample_weight` of the labels' shape: the loss of a batch is the
    sum over the known labels divided by the number of all its entries, known or not. So
    every known label weighs the same wherever it stands, and the gradient of a batch does
    not depend on how it is divided over replicas. Labels may lie between 0 and 1.

    Args:
        reduction: As for `keras.losses.Loss`.
        name: As for `keras.losses.Loss`.
        **kwargs: As for `keras.losses.Loss`.
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "masked_binary_crossentropy",
        **kwargs: Any,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits = ops.cast(y_pred, "float32")
        labels = ops.cast(y_true, "float32")
        # max(x, 0) - x * z + log(1 + exp(-|x|)): finite for every logit.
        return ops.relu(logits) - logits * labels + ops.log1p(ops.exp(-ops.abs(logits)))


@keras.saving.register_keras_serializable(package="rfkeras")
class SoftmaxCrossentropy(keras.losses.Loss):
    """Cross-entropy of the softmax of logits, one value a class.

    The value of a class is -label * log(probability) times the number of classes, so that
    the mean over all entries of a batch is the mean over its clips of the usual
    cross-entropy. Labels may lie between 0 and 1 (mixup, smoothing). Weights of the labels'
    shape weigh each class of a blended label on its own.

    Args:
        reduction: As for `keras.losses.Loss`.
        name: As for `keras.losses.Loss`.
        **kwargs: As for `keras.losses.Loss`.
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "softmax_crossentropy",
        **kwargs: Any,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits = ops.cast(y_pred, "float32")
        labels = ops.cast(y_true, "float32")
        return -labels * ops.log_softmax(logits, axis=-1) * float(logits.shape[-1])


def loss_for(task: str) -> keras.losses.Loss:
    """The loss of "multi_label" or "single_label"."""
    return SoftmaxCrossentropy() if task == "single_label" else MaskedBinaryCrossentropy()
