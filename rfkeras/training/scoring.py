"""Scores of a model for the clips of a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from rfkeras.data.windows import EvaluationPlan
from rfkeras.evaluation.metrics import average_precision, decide, decision_metrics, roc_auc
from rfkeras.evaluation.report import Report, evaluate
from rfkeras.evaluation.tasks import (
    check_single_label,
    decide_class,
    log_loss,
    probabilities,
)
from rfkeras.layers import find_head
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL
from rfkeras.training.inputs import Inputs

Array = NDArray[Any]


@dataclass(frozen=True)
class ScoredSplit:
    """A split with the scores of a model.

    Attributes:
        scores: (clips, classes) probabilities.
        labels: (clips, classes).
        mask: (clips, classes).
        keys: (clips,) key of each clip.
        report: Figures.
    """

    scores: Array
    labels: Array
    mask: Array
    keys: tuple[str, ...]
    report: Report


def model_task(model: Any) -> str:
    """The task that the model's head names; "multi_label" for a model without such a head."""
    head = find_head(model)
    return MULTI_LABEL if head is None else head.task


def predict_scores(model: Any, batches: Any, plan: EvaluationPlan) -> NDArray[np.float64]:
    """Score of every tag for every clip that could be read.

    Args:
        model: Keras model from waveform to logits; its head says what the logits mean.
        batches: tf.data set of windows, all batches full.
        plan: Which window belongs to which clip; both from `evaluation_batches`.

    Returns:
        (len(plan.kept_rows), classes): a clip's score is the mean over its windows of the
        sigmoid or, for a single-label model, of the softmax.
    """
    logits = model.predict(batches, verbose=0)
    return plan.average(probabilities(logits, model_task(model)))


def validation_figures(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike, task: str
) -> dict[str, float]:
    """The figures of an epoch, by their names in log.csv.

    195 tags of 11,000 clips take 1.5 s on one core.

    Args:
        scores: (clips, classes) probabilities.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known.
        task: "multi_label" or "single_label".

    Returns:
        val_loss, the loss that was trained but for class weights and mixup (so with class
        weights it is not what training minimises); val_mAP; val_roc_auc; val_f1, the macro
        mean with a threshold of 0.5 or, single-label, of the most likely class; and for
        single-label val_accuracy. Means are over the tags that define them; NaN where no
        tag does.

    Raises:
        ConfigError: Unknown task, an array that is not allowed, or, single-label, a clip
            without exactly one known class.
    """
    figures = {
        "val_loss": log_loss(scores, labels, mask, task),
        "val_mAP": average_precision(scores, labels, mask).macro,
        "val_roc_auc": roc_auc(scores, labels, mask).macro,
    }
    if task == SINGLE_LABEL:
        classes = check_single_label(labels, mask)
        decisions = decide_class(scores)
        accuracy = {"val_accuracy": float(np.mean(decisions.argmax(axis=1) == classes))}
    else:
        decisions, accuracy = decide(scores), {}
    macro_f1 = decision_metrics(decisions, labels, mask).f1.macro
    return {**figures, "val_f1": macro_f1, **accuracy}


def score_split(
    model: Any,
    inputs: Inputs,
    split: str,
    bootstrap_samples: int = 1000,
    threshold: ArrayLike | None = None,
) -> ScoredSplit:
    """Score a split and evaluate the scores.

    Args:
        model: Keras model from waveform to logits.
        inputs: The data.
        split: Name of the split.
        bootstrap_samples: Resamples behind the confidence intervals; 0 leaves them out.
        threshold: Score from which a tag applies, one for all or one for each; None: those
            kept in the model, else 0.5. A single-label model has none: its highest score
            decides.

    Raises:
        DatasetError: Too many files cannot be read.
        ConfigError: A threshold for a single-label model, or labels that are not of the
            model's task.
    """
    scores, labels, mask, keys = score_clips(model, inputs, split)
    head = find_head(model)
    if threshold is None and head is not None and head.task == MULTI_LABEL:
        threshold = head.thresholds
    report = evaluate(
        scores,
        labels,
        mask,
        label_names=inputs.dataset.label_names,
        threshold=threshold,
        bootstrap_samples=bootstrap_samples,
        task=model_task(model),
    )
    return ScoredSplit(scores, labels, mask, keys, report)


def score_clips(
    model: Any, inputs: Inputs, split: str
) -> tuple[Array, Array, Array, tuple[str, ...]]:
    """Scores, labels and mask, each (clips, classes), and keys of a split's readable clips.

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
    keys = inputs.dataset.split(split).keys
    return scores, labels, mask, tuple(keys[row] for row in plan.kept_rows)
