"""Losses of the two tasks, on logits, with a weight for every label."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


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
