"""Figures of a single-label task: how often the most likely class is the right one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rfkeras.evaluation.bootstrap import percentiles, resample_counts
from rfkeras.evaluation.inputs import FloatArray, check_scores
from rfkeras.evaluation.metrics import mean_of_defined
from rfkeras.evaluation.tasks import check_single_label, decide_class, log_loss
from rfkeras.tasks import SINGLE_LABEL

# How far the scores of a clip may sum from 1 and still be probabilities in float16.
_SUM_ERROR = 5e-3


@dataclass(frozen=True)
class ClassFigures:
    """What the most likely class is worth.

    Attributes:
        accuracy: Share of the clips whose highest score is at the right class.
        accuracy_interval: (2,) its bootstrap interval.
        macro_accuracy: Mean over the classes that have clips of their recall, also called
            balanced or class-wise accuracy.
        macro_accuracy_interval: (2,) its bootstrap interval.
        log_loss: Mean over the clips of -log(score of the right class), in nats, scores
            kept 1e-7 from 0; NaN where the scores of a clip do not sum to 1.
        confusion: (classes, classes) clips of the class of the row that were taken for the
            class of the column.
    """

    accuracy: float
    accuracy_interval: FloatArray
    macro_accuracy: float
    macro_accuracy_interval: FloatArray
    log_loss: float
    confusion: NDArray[np.int64]


def class_figures(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ClassFigures:
    """Accuracy, macro accuracy, log loss and confusion matrix.

    The intervals are percentiles over resamples of the clips. They need no reflection, as
    those of average precision do, for a mean over clips is not biased by resampling.

    Args:
        scores: (clips, classes) finite numbers; the highest decides, the first of equals.
        labels: (clips, classes) of 0 and 1, one 1 in each row.
        mask: (clips, classes) of 1; None means the same.
        samples: Resamples behind the intervals; 0 leaves their bounds NaN.
        confidence: Share of the resamples inside an interval.
        seed: Seed of the resampling.

    Raises:
        ConfigError: A shape or value is not allowed, or a clip has not exactly one class.
    """
    values = check_scores(scores)
    truth = check_single_label(labels, mask)
    chosen = decide_class(values).argmax(axis=1)
    n_classes = values.shape[1]
    confusion = np.bincount(truth * n_classes + chosen, minlength=n_classes**2)
    confusion = confusion.reshape(n_classes, n_classes)
    right = chosen == truth
    accuracies, macros = np.full(samples, np.nan), np.full(samples, np.nan)
    members = np.eye(n_classes)[truth]
    for rows, counts in resample_counts(len(values), samples, seed):
        accuracies[rows] = counts @ right / len(values)
        macros[rows] = _mean_recall((counts * right) @ members, counts @ members)
    sums_to_one = np.abs(values.sum(axis=1) - 1).max() <= _SUM_ERROR
    probable = bool(sums_to_one and values.min() >= 0)
    return ClassFigures(
        accuracy=float(right.mean()),
        accuracy_interval=percentiles(accuracies, confidence),
        macro_accuracy=mean_of_defined(_recall(np.diag(confusion), confusion.sum(axis=1))),
        macro_accuracy_interval=percentiles(macros, confidence),
        log_loss=log_loss(values, labels, 1, SINGLE_LABEL) if probable else float("nan"),
        confusion=confusion,
    )


def _recall(hits: FloatArray, clips: FloatArray) -> FloatArray:
    return np.where(clips > 0, hits / np.maximum(clips, 1), np.nan)


def _mean_recall(hits: FloatArray, clips: FloatArray) -> FloatArray:
    """Mean recall (resamples,) over the classes that a resample holds."""
    return np.asarray(np.nanmean(_recall(hits, clips), axis=1))
