"""Decision thresholds that maximise F1 on a validation set, one for each tag."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rfkeras.evaluation.inputs import BoolArray, FloatArray, check_scored
from rfkeras.tasks import HALF


def best_f1_thresholds(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> FloatArray:
    """The threshold of each tag at which the decisions `scores >= threshold` have most F1.

    Exact: every cut between two different scores is tried, on the annotated clips. Any
    threshold between two neighbouring scores decides the validation clips alike; the one
    midway is taken, since on other clips it errs least to either side. A cut below the
    lowest score lies midway between it and 0. Of cuts with equal F1 the highest is taken:
    it claims the tag for the fewest clips. A tag without positives keeps 0.5.

    The fewer positives a tag has, the more its threshold owes to chance, and the more the
    F1 on the validation set itself flatters: report the F1 of other clips.

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
    thresholds = np.full(scored.scores.shape[1], HALF)
    for tag in range(len(thresholds)):
        known = scored.mask[:, tag]
        if scored.labels[:, tag].any():
            thresholds[tag] = _best(scored.scores[known, tag], scored.labels[known, tag])
    return thresholds


def _best(scores: FloatArray, labels: BoolArray) -> float:
    distinct, place = np.unique(scores, return_inverse=True)
    # From the highest score down: clips claimed, and those rightly so, at each cut.
    claimed = np.bincount(place)[::-1].cumsum()
    hits = np.bincount(place, weights=labels)[::-1].cumsum()
    # Quotients of whole numbers, so that equal F1 compares equal.
    f1 = 2 * hits / (claimed + labels.sum())
    lowest_claimed = len(distinct) - 1 - int(np.argmax(f1))
    upper = float(distinct[lowest_claimed])
    lower = float(distinct[lowest_claimed - 1]) if lowest_claimed else min(0.0, upper)
    middle = lower + (upper - lower) / 2
    return middle if middle > lower else upper  # neighbouring floats have no middle
