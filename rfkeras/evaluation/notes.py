"""What a reader of a report has to know, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rfkeras.evaluation.bootstrap import Intervals
from rfkeras.evaluation.metrics import PerTag
from rfkeras.evaluation.single_label import ClassFigures

_NAMES_IN_A_NOTE = 8


def notes_on_tags(names: Sequence[str], figures: Mapping[str, PerTag]) -> list[str]:
    """Which tags a macro mean leaves out, and why."""
    notes = []
    for key, title in (
        ("average_precision", "average precision or F1"),
        ("roc_auc", "ROC-AUC"),
    ):
        figure = figures[key]
        if figure.left_out:
            why = [f"{n} ({r})" for n, r in zip(names, figure.reasons, strict=True) if r]
            notes.append(
                f"No {title} for {figure.left_out} of {len(names)} tags, which the macro mean "
                f"leaves out: {_listed(why)}."
            )
    return notes


def notes_on_resamples(names: Sequence[str], intervals: Intervals, samples: int) -> list[str]:
    """Which tags were missing from some of the resamples."""
    partly = [
        f"{name} ({held} of {samples})"
        for name, held in zip(names, intervals.resamples_with_tag, strict=True)
        if 0 < held < samples
    ]
    if not partly:
        return []
    return [
        "So few positives that some resamples had none; the interval rests on the others: "
        f"{_listed(partly)}."
    ]


def _listed(items: Sequence[str]) -> str:
    shown = ", ".join(items[:_NAMES_IN_A_NOTE])
    more = len(items) - _NAMES_IN_A_NOTE
    return f"{shown} and {more} more" if more > 0 else shown


def notes_on_scores(low: float, high: float) -> list[str]:
    """Whether a threshold is compared with something other than probabilities.

    Args:
        low: Lowest score.
        high: Highest score.
    """
    if low >= 0 and high <= 1:
        return []
    return [
        f"The scores run from {low:.3g} to {high:.3g}, so they are not probabilities: "
        "F1, precision and recall compare them with the threshold as they are."
    ]


def notes_on_classes(figures: ClassFigures) -> list[str]:
    """Whether scores of a single-label task are no probabilities."""
    if not math.isnan(figures.log_loss):
        return []
    return [
        "The scores of a clip do not sum to 1, so they are not probabilities of classes that "
        "exclude each other, and have no log loss."
    ]
