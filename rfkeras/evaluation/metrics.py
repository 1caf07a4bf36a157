"""Metrics of tagging from scores, labels and mask: average precision, ROC-AUC, F1, log loss.

Each metric is computed per tag on the tag's annotated clips. A macro mean is over the tags on
which the metric is defined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from rfkeras.errors import ConfigError
from rfkeras.tasks import DEFAULT_THRESHOLD, MULTI_LABEL, SINGLE_LABEL, check_task
from rfkeras.utils.text import count

FloatArray = NDArray[np.float64]

BoolArray = NDArray[np.bool_]

NOT_ANNOTATED = "not annotated"

NO_POSITIVES = "no positives"

NO_NEGATIVES = "no negatives"


@dataclass(frozen=True)
class PerTag:
    """One metric of every tag.

    Attributes:
        values: (classes,) NaN where the metric is undefined.
        reasons: (classes,) Why it is undefined; "" where it is defined.
    """

    values: FloatArray
    reasons: tuple[str, ...]

    @property
    def macro(self) -> float:
        """Mean over the tags on which the metric is defined; NaN if there are none."""
        return mean_of_defined(self.values)

    @property
    def left_out(self) -> int:
        """Number of tags that the macro mean leaves out."""
        return sum(1 for reason in self.reasons if reason)


@dataclass(frozen=True)
class DecisionMetrics:
    """F1, precision and recall of every tag, from yes/no decisions."""

    f1: PerTag
    precision: PerTag
    recall: PerTag


def mean_of_defined(values: FloatArray) -> float:
    """Return the mean of the entries that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def average_precision(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> PerTag:
    """Compute the average precision of each tag.

    It is the area under the stepped precision-recall curve.

    Args:
        scores: (clips, classes) finite numbers, higher means more likely.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.

    Returns:
        PerTag: NaN for a tag without positives.

    Raises:
        ConfigError: A shape or value is not allowed.
    """
    scored = check_scored(scores, labels, mask)
    return _ranked(scored, average_precision_score, needs_negatives=False)


def roc_auc(scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> PerTag:
    """Compute the area under the ROC curve of each tag; 0.5 is chance.

    Arguments and errors are the same as for `average_precision`.

    Returns:
        PerTag: NaN for a tag without positives or without negatives.
    """
    return _ranked(check_scored(scores, labels, mask), roc_auc_score, needs_negatives=True)


def mean_average_precision(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> float:
    """Compute the macro mAP: mean average precision over the tags that have positives.

    Arguments and errors are the same as for `average_precision`. NaN if no tag has positives.
    """
    return average_precision(scores, labels, mask).macro


def positive_rate(labels: ArrayLike, mask: ArrayLike | None = None) -> PerTag:
    """Compute the share of positives among each tag's annotated clips.

    It is the average precision that a random ranking reaches.

    Args:
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.

    Returns:
        PerTag: NaN for a tag without positives, as for average precision, so that both
        means are over the same tags.
    """
    scored = check_scored(np.zeros(np.shape(labels)), labels, mask)
    reasons = undefined_reasons(scored.labels, scored.mask, needs_negatives=False)
    positive, annotated = scored.labels.sum(axis=0), scored.mask.sum(axis=0)
    rates = positive / np.maximum(annotated, 1)
    return PerTag(np.where([bool(r) for r in reasons], np.nan, rates), reasons)


def decide(scores: ArrayLike, threshold: ArrayLike = 0.5) -> BoolArray:
    """Return decisions (clips, classes): True where the score reaches the threshold.

    Args:
        scores: (clips, classes) finite numbers.
        threshold: One number, or one number per class.

    Raises:
        ConfigError: A shape or value is not allowed.
    """
    values = check_scores(scores)
    decided: BoolArray = values >= check_threshold(threshold, values.shape[1])
    return decided


def decide_class(scores: ArrayLike) -> BoolArray:
    """Return decisions (clips, classes) with one True per row, at the highest score.

    Of equal scores the first wins, as in `numpy.argmax`.

    Args:
        scores: (clips, classes) finite numbers.

    Raises:
        ConfigError: A shape or value is not allowed.
    """
    values = check_scores(scores)
    decided: BoolArray = np.zeros(values.shape, np.bool_)
    decided[np.arange(len(values)), values.argmax(axis=1)] = True
    return decided


def decision_metrics(
    decisions: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> DecisionMetrics:
    """Compute F1, precision and recall of each tag from yes/no decisions.

    A tag with positives but no positive decision has precision 0 and F1 0. Leaving it out of
    the mean would reward a model that never predicts the tag.

    Args:
        decisions: (clips, classes) of 0 and 1.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.

    Returns:
        DecisionMetrics: NaN for a tag without positives.

    Raises:
        ConfigError: A shape or value is not allowed.
    """
    scored = check_scored(np.zeros(np.shape(labels)), labels, mask)
    decided = check_binary("decisions", decisions, scored.labels.shape) & scored.mask
    hits = (decided & scored.labels).sum(axis=0)
    claimed, positive = decided.sum(axis=0), scored.labels.sum(axis=0)
    reasons = undefined_reasons(scored.labels, scored.mask, needs_negatives=False)
    undefined = np.array([bool(reason) for reason in reasons])

    def per_tag(numerator: FloatArray, denominator: FloatArray) -> PerTag:
        shares = numerator / np.maximum(denominator, 1)
        return PerTag(np.where(undefined, np.nan, shares), reasons)

    return DecisionMetrics(
        f1=per_tag(2.0 * hits, claimed + positive),
        precision=per_tag(hits, claimed),
        recall=per_tag(hits, positive),
    )


def f1(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    threshold: ArrayLike = 0.5,
) -> PerTag:
    """Compute the F1 of each tag with the decisions `scores >= threshold`.

    See `decision_metrics`.
    """
    return decision_metrics(decide(scores, threshold), labels, mask).f1


def micro_metrics(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None, decisions: ArrayLike
) -> dict[str, float]:
    """Compute the metrics of all annotated entries pooled.

    Args:
        scores: (clips, classes) finite numbers; comparable between tags.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.
        decisions: (clips, classes) of 0 and 1.

    Returns:
        average_precision, roc_auc, f1, precision and recall by name. They are NaN without
        positives, ROC-AUC also without negatives.

    Raises:
        ConfigError: A shape or value is not allowed.
    """
    scored = check_scored(scores, labels, mask)
    decided = check_binary("decisions", decisions, scored.labels.shape)
    names = ("average_precision", "roc_auc", "f1", "precision", "recall")
    if not scored.mask.any():
        return dict.fromkeys(names, float("nan"))
    pooled_scores, pooled_labels, pooled_decisions = (
        array[scored.mask][:, np.newaxis] for array in (scored.scores, scored.labels, decided)
    )
    shares = decision_metrics(pooled_decisions, pooled_labels)
    pooled = (
        average_precision(pooled_scores, pooled_labels),
        roc_auc(pooled_scores, pooled_labels),
        shares.f1,
        shares.precision,
        shares.recall,
    )
    return {name: metric.macro for name, metric in zip(names, pooled, strict=True)}


def _ranked(scored: Scored, metric: Callable[..., float], *, needs_negatives: bool) -> PerTag:
    """Compute a ranking metric of scikit-learn on every tag that defines it."""
    reasons = undefined_reasons(scored.labels, scored.mask, needs_negatives=needs_negatives)
    values = np.full(len(reasons), np.nan)
    for tag, reason in enumerate(reasons):
        if not reason:
            known = scored.mask[:, tag]
            values[tag] = metric(scored.labels[known, tag], scored.scores[known, tag])
    return PerTag(values, reasons)


def undefined_reasons(
    labels: BoolArray, mask: BoolArray, *, needs_negatives: bool
) -> tuple[str, ...]:
    """Return why a metric is undefined on each tag; "" where it is defined.

    Args:
        labels: (clips, classes), False wherever the mask is.
        mask: (clips, classes), True where the label is known.
        needs_negatives: The metric is undefined without negatives too.
    """
    positives, annotated = labels.sum(axis=0), mask.sum(axis=0)
    reasons = np.full(labels.shape[1], "", dtype=object)
    if needs_negatives:
        reasons[positives == annotated] = NO_NEGATIVES
    reasons[positives == 0] = NO_POSITIVES
    reasons[annotated == 0] = NOT_ANNOTATED
    return tuple(str(reason) for reason in reasons)


def best_f1_thresholds(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> FloatArray:
    """Return the threshold of each tag that maximises F1 for `scores >= threshold`.

    The search is exact: it tries every threshold between two different scores of the
    annotated clips. All thresholds between two neighbouring scores give the same decisions on
    these clips; the one halfway is returned, which is the safest on other clips. A threshold
    below the lowest score is halfway between that score and 0. Of several thresholds with
    equal F1 the highest is returned, which applies the tag to the fewest clips. A tag without
    positives keeps 0.5.

    With few positives the threshold depends strongly on chance, and F1 on the same clips is
    optimistic. Report F1 on other clips.

    Args:
        scores: (clips, classes) probabilities.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.

    Returns:
        (classes,) thresholds.

    Raises:
        ConfigError: A shape or value is not allowed.
    """
    scored = check_scored(scores, labels, mask)
    thresholds = np.full(scored.scores.shape[1], DEFAULT_THRESHOLD)
    for tag in range(len(thresholds)):
        known = scored.mask[:, tag]
        if scored.labels[:, tag].any():
            thresholds[tag] = _best(scored.scores[known, tag], scored.labels[known, tag])
    return thresholds


def _best(scores: FloatArray, labels: BoolArray) -> float:
    """Return the best threshold of one tag."""
    distinct, place = np.unique(scores, return_inverse=True)
    # Positive decisions, and the correct ones among them, from the highest threshold down.
    claimed = np.bincount(place)[::-1].cumsum()
    hits = np.bincount(place, weights=labels)[::-1].cumsum()
    # Quotients of integers, so that equal F1 values compare equal.
    f1 = 2 * hits / (claimed + labels.sum())
    lowest_claimed = len(distinct) - 1 - int(np.argmax(f1))
    upper = float(distinct[lowest_claimed])
    lower = float(distinct[lowest_claimed - 1]) if lowest_claimed else min(0.0, upper)
    middle = lower + (upper - lower) / 2
    return middle if middle > lower else upper  # neighbouring floats have no middle


_LEAST = 1e-7  # probabilities are clipped to this distance from 0 and 1, as in Keras


def probabilities(logits: ArrayLike, task: str) -> FloatArray:
    """Return the scores of logits in float64, so that large logits do not tie.

    `ClipLogits.scores` computes the same in float32.

    Args:
        logits: (clips, classes).
        task: "multi_label" or "single_label".

    Raises:
        ConfigError: Unknown task.
    """
    values = np.asarray(logits, np.float64)
    if check_task(task) == MULTI_LABEL:
        return np.asarray(np.exp(-np.logaddexp(0.0, -values)))  # 1 / (1 + e^-x), no overflow
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def log_loss(scores: ArrayLike, labels: ArrayLike, mask: ArrayLike, task: str) -> float:
    """Compute the training loss of probabilities.

    Multi-label: binary cross-entropy, the sum over the known labels divided by the number of
    all labels. Single-label: mean over the clips of the negative logarithm of the score of
    the right class.

    Args:
        scores: (clips, classes) probabilities.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; single-label: all 1.
        task: "multi_label" or "single_label".

    Raises:
        ConfigError: Unknown task.
    """
    values = np.clip(np.asarray(scores, np.float64), _LEAST, 1 - _LEAST)
    truth = np.asarray(labels)
    if check_task(task) == SINGLE_LABEL:
        return float(np.mean(-np.log(values[truth == 1])))
    losses = -truth * np.log(values) - (1 - truth) * np.log(1 - values)
    return float(np.mean(losses * np.asarray(mask)))


@dataclass(frozen=True)
class Scored:
    """Checked scores and labels.

    Attributes:
        scores: (clips, classes), finite; higher means more likely.
        labels: (clips, classes), False wherever the mask is False.
        mask: (clips, classes), True where the label is known.
    """

    scores: FloatArray
    labels: BoolArray
    mask: BoolArray


def check_scored(scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> Scored:
    """Return checked scores, labels and mask in the form that the metrics use.

    Args:
        scores: (clips, classes) finite numbers.
        labels: (clips, classes) of 0 and 1; anything where the mask is 0.
        mask: (clips, classes) of 0 and 1; None means that every label is known.

    Raises:
        ConfigError: A shape, type or value is not allowed.
    """
    values = check_scores(scores)
    known = (
        np.ones(values.shape, dtype=np.bool_)
        if mask is None
        else check_binary("mask", mask, values.shape)
    )
    return Scored(values, check_binary("labels", labels, values.shape, where=known), known)


def check_scores(scores: ArrayLike) -> FloatArray:
    """Return the scores as (clips, classes) float64.

    Raises:
        ConfigError: They are not a non-empty table of finite numbers.
    """
    values = np.asarray(scores)
    if values.ndim != 2 or 0 in values.shape:
        raise ConfigError(
            "scores must be a table (clips, classes) with at least one clip and one class. "
            f"Received: shape {values.shape}. For a single tag, reshape to (clips, 1)."
        )
    if values.dtype.kind not in "biuf":
        raise ConfigError(f"scores must be real numbers. Received: dtype {values.dtype}.")
    values = values.astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        clip, tag = (int(i) for i in np.argwhere(bad)[0])
        raise ConfigError(
            "scores must be finite. Received "
            f"{count(int(bad.sum()), 'NaN or infinite value')}, the first at clip {clip}, "
            f"class {tag}. The training may have diverged: lower the learning rate, or look "
            "for bad input."
        )
    return values


def check_binary(
    name: str, values: ArrayLike, shape: tuple[int, ...], where: BoolArray | None = None
) -> BoolArray:
    """Return an array of 0 and 1 as booleans.

    Args:
        name: Name of the array, for messages.
        values: Numbers or booleans.
        shape: Required shape, that of the scores.
        where: Same shape; where it is False, any value is accepted and becomes False.

    Raises:
        ConfigError: Wrong shape, or a value other than 0 and 1.
    """
    array = np.asarray(values)
    if array.shape != shape:
        raise ConfigError(
            f"{name} must have the shape of the scores, {shape}. Received: {array.shape}."
        )
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{name} must be 0 and 1. Received: dtype {array.dtype}.")
    counted = np.ones(shape, dtype=np.bool_) if where is None else where
    bad = counted & (array != 0) & (array != 1)
    if bad.any():
        clip, tag = (int(i) for i in np.argwhere(bad)[0])
        raise ConfigError(
            f"{name} must be 0 or 1. Received {count(int(bad.sum()), 'other value')}, the "
            f"first {array[clip, tag]} at clip {clip}, class {tag}. Mark unknown labels with "
            "a 0 in the mask."
        )
    result: BoolArray = counted & (array == 1)
    return result


def check_threshold(threshold: ArrayLike, classes: int) -> FloatArray:
    """Return one threshold per class, from one number or one number per class.

    Raises:
        ConfigError: The shape is wrong, or a number is not finite.
    """
    values = np.asarray(threshold)
    if values.dtype.kind not in "iuf" or values.shape not in ((), (classes,)):
        raise ConfigError(
            f"threshold must be one number or one number per class ({classes}). "
            f"Received: shape {values.shape}, dtype {values.dtype}."
        )
    if not np.isfinite(values).all():
        raise ConfigError(f"threshold must be finite. Received: {values.tolist()}.")
    return np.broadcast_to(values, (classes,)).astype(np.float64)


def check_single_label(labels: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.int64]:
    """Return the class number of each clip, (clips,).

    Args:
        labels: (clips, classes) of 0 and 1, one 1 in each row.
        mask: (clips, classes) of 1; None means the same.

    Raises:
        ConfigError: A clip has no class, several classes, or unknown labels.
    """
    checked = check_scored(np.zeros(np.shape(labels)), labels, mask)
    if not checked.mask.all():
        clip = int(np.argmin(checked.mask.all(axis=1)))
        raise ConfigError(
            "A single-label task needs all labels: the mask must be 1 everywhere. Received 0 "
            f"in the mask of {count(int((~checked.mask).any(axis=1).sum()), 'clip')}, first in "
            f"clip {clip}. Leave those clips out, or use task 'multi_label'."
        )
    classes = checked.labels.sum(axis=1)
    if (classes != 1).any():
        clip = int(np.argmax(classes != 1))
        raise ConfigError(
            "A single-label task needs exactly one class per clip. Received "
            f"{count(int((classes != 1).sum()), 'clip')} with another number, first clip "
            f"{clip} with {int(classes[clip])}. If tags can occur together, use task "
            "'multi_label'."
        )
    return np.asarray(checked.labels.argmax(axis=1), np.int64)
