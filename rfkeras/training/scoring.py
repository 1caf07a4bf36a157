"""Scores of a model for the clips of a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.data.windows import EvaluationPlan
from rfkeras.evaluation.report import Report, evaluate
from rfkeras.training.inputs import Inputs

Array = NDArray[Any]


@dataclass(frozen=True)
class ScoredSplit:
    """A split with the scores of a model.

    Attributes:
        scores: (clips, classes) probabilities.
        labels: (clips, classes).
        mask: (clips, classes).
        report: Figures.
    """

    scores: Array
    labels: Array
    mask: Array
    report: Report


def predict_scores(model: Any, batches: Any, plan: EvaluationPlan) -> NDArray[np.float64]:
    """Probability of every tag for every clip that could be read.

    Args:
        model: Keras model from waveform to logits.
        batches: tf.data set of windows, all batches full.
        plan: Which window belongs to which clip; both from `evaluation_batches`.

    Returns:
        (len(plan.kept_rows), classes): a clip's probability is the mean over its windows.
    """
    logits = model.predict(batches, verbose=0)
    return plan.average(1.0 / (1.0 + np.exp(-logits.astype(np.float64))))


def masked_cross_entropy(scores: Array, labels: Array, mask: Array) -> float:
    """Binary cross-entropy of probabilities, reduced like `MaskedBinaryCrossentropy`."""
    bounded = np.clip(scores, 1e-7, 1 - 1e-7)
    losses = -labels * np.log(bounded) - (1 - labels) * np.log(1 - bounded)
    return float(np.mean(losses * mask))


def score_split(
    model: Any, inputs: Inputs, split: str, bootstrap_samples: int = 1000
) -> ScoredSplit:
    """Score a split and evaluate the scores.

    Raises:
        DatasetError: Too many files cannot be read.
    """
    batches, plan = inputs.evaluation(split)
    try:
        scores = predict_scores(model, batches, plan)
    except tf.errors.OpError:
        inputs.bad_files.raise_if_stopped()  # tf.data hides the cause; this shows it
        raise
    labels, mask = inputs.truth(split, plan.kept_rows)
    report = evaluate(
        scores,
        labels,
        mask,
        label_names=inputs.dataset.label_names,
        bootstrap_samples=bootstrap_samples,
    )
    return ScoredSplit(scores, labels, mask, report)
