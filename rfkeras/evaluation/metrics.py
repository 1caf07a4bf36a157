"""Tagging metrics for partially labelled data: NumPy in, scikit-learn inside.

Every metric of a tag counts only the clips on which that tag was annotated. A tag on
which a metric is undefined has NaN and a reason; the macro mean is over the other tags.
Micro figures pool all annotated (clip, tag) entries into one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score

from rfkeras.evaluation.inputs import (
    BoolArray,
    FloatArray,
    Scored,
    check_binary,
    check_scored,
    check_scores,
    check_threshold,
)

NOT_ANNOTATED = "not annotated"
NO_POSITIVES = "no positives"
NO_NEGATIVES = "no negatives"


@dataclass(frozen=True)
class PerTag:
    """One metric, tag by tag.

    Attributes:
        values: (classes,) NaN where the metric is undefined.
        reasons: (classes,) why it is undefined; "" where it is defined.
    """

    values: FloatArray
    reasons: tuple[str, ...]

    @property
    def macro(self) -> float:
        """Mean over the tags on which the metric is defined; NaN when there are none."""
        return mean_of_defined(self.values)

    @property
    def left_out(self) -> int:
        """How many tags the macro mean leaves out."""
        return sum(1 for reason in self.reasons if reason)


@dataclass(frozen=True)
class DecisionMetrics:
    """What yes/no decisions are worth, tag by tag."""

    f1: PerTag
    precision: PerTag
    recall: PerTag


def mean_of_defined(values: FloatArray) -> float:
    """Mean of the entries that are not NaN; NaN when there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def average_precision(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> PerTag:
    """Average precision of each tag (area under its precision-recall curve, by steps).

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
    """Area under the ROC curve of each tag; 0.5 is chance.

    Arguments and errors as for `average_precision`.

    Returns:
        PerTag: NaN for a tag without positives or without negatives.
    """
    return _ranked(check_scored(scores, labels, mask), roc_auc_score, needs_negatives=True)


def mean_average_precision(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> float:
    """Macro mAP: mean average precision over the tags that have positives.

    Arguments and errors as for `average_precision`. NaN when no tag has a positive.
    """
    return average_precision(scores, labels, mask).macro


def positive_rate(labels: ArrayLike, mask: ArrayLike | None = None) -> PerTag:
    """Share of positives among a tag's annotated clips: its chance level of AP.

    Args:
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.

    Returns:
        PerTag: NaN for a tag without positives, as average precision has, so that both
        means are over the same tags.
    """
    scored = check_scored(np.zeros(np.shape(labels)), labels, mask)
    reasons = undefined_reasons(scored.labels, scored.mask, needs_negatives=False)
    positive, annotated = scored.labels.sum(axis=0), scored.mask.sum(axis=0)
    rates = positive / np.maximum(annotated, 1)
    return PerTag(np.where([bool(r) for r in reasons], np.nan, rates), reasons)


def decide(scores: ArrayLike, threshold: ArrayLike = 0.5) -> BoolArray:
    """Decisions (clips, classes): True where the score is at or over the threshold.

    Args:
        scores: (clips, classes) finite numbers.
        threshold: One number, or one for each class.

    Raises:
        ConfigError: A shape or value is not allowed.
    """
    values = check_scores(scores)
    decided: BoolArray = values >= check_threshold(threshold, values.shape[1])
    return decided


def decision_metrics(
    decisions: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> DecisionMetrics:
    """F1, precision and recall of each tag from yes/no decisions.

    A tag with positives but no positive decision has precision 0 and F1 0: leaving it
    out of the mean would reward silence.

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
    """F1 of each tag with the decisions `scores >= threshold`; see `decision_metrics`."""
    return decision_metrics(decide(scores, threshold), labels, mask).f1


def micro_metrics(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None, decisions: ArrayLike
) -> dict[str, float]:
    """All annotated entries pooled: average_precision, roc_auc, f1, precision, recall.

    Args:
        scores: (clips, classes) finite numbers; comparable between tags.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.
        decisions: (clips, classes) of 0 and 1.

    Returns:
        The figures by name; NaN where the pool has no positives (ROC-AUC: no negatives).

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
    figures = (
        average_precision(pooled_scores, pooled_labels),
        roc_auc(pooled_scores, pooled_labels),
        shares.f1,
        shares.precision,
        shares.recall,
    )
    return {name: figure.macro for name, figure in zip(names, figures, strict=True)}


def undefined_reasons(
    labels: BoolArray, mask: BoolArray, *, needs_negatives: bool
) -> tuple[str, ...]:
    """Why a metric is undefined on each tag; "" where it is defined.

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


def _ranked(scored: Scored, metric: Callable[..., float], *, needs_negatives: bool) -> PerTag:
    reasons = undefined_reasons(scored.labels, scored.mask, needs_negatives=needs_negatives)
    values = np.full(len(reasons), np.nan)
    for tag, reason in enumerate(reasons):
        if not reason:
            known = scored.mask[:, tag]
            values[tag] = metric(scored.labels[known, tag], scored.scores[known, tag])
    return PerTag(values, reasons)
