"""The evaluation of one model on one test set: computed once, then written or shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rfkeras.errors import ConfigError
from rfkeras.evaluation.bootstrap import Intervals, bootstrap_intervals
from rfkeras.evaluation.inputs import check_binary, check_scored, check_threshold
from rfkeras.evaluation.metrics import (
    PerTag,
    average_precision,
    decide,
    decision_metrics,
    micro_metrics,
    positive_rate,
    roc_auc,
)
from rfkeras.evaluation.result import Report, TagRow

__all__ = ["Report", "TagRow", "evaluate", "write_report"]

CONFIDENCE = 0.95
_NAMES_IN_A_NOTE = 8


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    label_names: Sequence[str],
    decisions: ArrayLike | None = None,
    threshold: ArrayLike = 0.5,
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> Report:
    """Evaluate a tagger's scores.

    Args:
        scores: (clips, classes) finite numbers, higher means more likely.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.
        label_names: Name of each class, all different.
        decisions: (clips, classes) of 0 and 1; None: `scores >= threshold`.
        threshold: One number, or one for each class; not used with decisions.
        bootstrap_samples: Resamples behind the confidence intervals; 0 leaves them out.
        seed: Seed of the resampling.

    Raises:
        ConfigError: A shape, value or name is not allowed.
    """
    scored = check_scored(scores, labels, mask)
    names = _check_names(label_names, scored.scores.shape[1])
    if decisions is None:
        thresholds = check_threshold(threshold, len(names))
        decided = decide(scored.scores, thresholds)
    else:
        thresholds = np.full(len(names), np.nan)
        decided = check_binary("decisions", decisions, scored.scores.shape)
    arrays = (scored.scores, scored.labels, scored.mask)
    shares = decision_metrics(decided, scored.labels, scored.mask)
    figures = {
        "chance": positive_rate(scored.labels, scored.mask),
        "average_precision": average_precision(*arrays),
        "roc_auc": roc_auc(*arrays),
        "f1": shares.f1,
        "precision": shares.precision,
        "recall": shares.recall,
    }
    intervals = bootstrap_intervals(
        *arrays, samples=bootstrap_samples, confidence=CONFIDENCE, seed=seed
    )
    annotated, positive = scored.mask.sum(axis=0), scored.labels.sum(axis=0)
    rows = tuple(
        TagRow(
            name=name,
            annotated=int(annotated[tag]),
            positive=int(positive[tag]),
            average_precision_low=float(intervals.average_precision[tag, 0]),
            average_precision_high=float(intervals.average_precision[tag, 1]),
            roc_auc_low=float(intervals.roc_auc[tag, 0]),
            roc_auc_high=float(intervals.roc_auc[tag, 1]),
            threshold=float(thresholds[tag]),
            undefined=figures["roc_auc"].reasons[tag],
            **{key: float(figure.values[tag]) for key, figure in figures.items()},
        )
        for tag, name in enumerate(names)
    )
    chance = figures.pop("chance")
    summary: dict[str, dict[str, float]] = {
        "counts": {
            "clips": len(scored.scores),
            "tags": len(names),
            "annotated": int(annotated.sum()),
            "positive": int(positive.sum()),
        },
        "macro": _macro(figures, intervals),
        "tags_in_macro": {key: len(names) - f.left_out for key, f in figures.items()},
        "micro": micro_metrics(*arrays, decided),
        "chance": {"average_precision": chance.macro, "roc_auc": 0.5},
        "bootstrap": {"samples": bootstrap_samples, "seed": seed, "confidence": CONFIDENCE},
    }
    notes = _notes_on_tags(names, figures)
    notes += _notes_on_resamples(names, intervals, bootstrap_samples)
    low, high = float(scored.scores.min()), float(scored.scores.max())
    if decisions is None and (low < 0 or high > 1):
        notes.append(
            f"The scores run from {low:.3g} to {high:.3g}, so they are not probabilities: "
            "F1, precision and recall compare them with the threshold as they are."
        )
    return Report(rows, summary, tuple(notes))


def write_report(
    report: Report,
    folder: str | Path,
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    history: Mapping[str, Sequence[float | str]] | None = None,
) -> tuple[Path, ...]:
    """Write report.json, per_tag.csv and the plots into a folder, each whole or not at all.

    Args:
        report: What `evaluate` returned for these arrays.
        folder: Where to; made if needed.
        scores: (clips, classes), for the precision-recall curves.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.
        history: Columns of the training log, for the training curves; None or no epochs:
            no such plot.

    Returns:
        The files written.

    Raises:
        ConfigError: An array does not fit the report, or the history is malformed.
    """
    # Here, so that matplotlib loads only when plots are wanted.
    from rfkeras.evaluation import plots
    from rfkeras.evaluation.plot_style import save_png
    from rfkeras.evaluation.training_plot import training_curves

    folder = Path(folder)
    figures = {
        "per_tag.png": plots.per_tag_bars(report),
        "precision_recall.png": plots.precision_recall_curves(report, scores, labels, mask),
    }
    if history and any(len(column) for column in history.values()):
        figures["training.png"] = training_curves(history)
    report.to_json(folder / "report.json")
    report.to_csv(folder / "per_tag.csv")
    for name, figure in figures.items():
        save_png(figure, folder / name)
    return tuple(folder / name for name in ("report.json", "per_tag.csv", *figures))


def _check_names(label_names: Sequence[str], classes: int) -> tuple[str, ...]:
    names = tuple(str(name) for name in label_names)
    if len(names) != classes:
        raise ConfigError(
            f"label_names must name each of the {classes} classes. Received {len(names)}."
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"label_names must differ. Received twice: {', '.join(repeated)}.")
    return names


def _macro(figures: Mapping[str, PerTag], intervals: Intervals) -> dict[str, float]:
    macro = {key: figure.macro for key, figure in figures.items()}
    for key, bounds in (
        ("average_precision", intervals.macro_average_precision),
        ("roc_auc", intervals.macro_roc_auc),
    ):
        macro[f"{key}_low"], macro[f"{key}_high"] = (float(bound) for bound in bounds)
    return macro


def _notes_on_tags(names: Sequence[str], figures: Mapping[str, PerTag]) -> list[str]:
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


def _notes_on_resamples(names: Sequence[str], intervals: Intervals, samples: int) -> list[str]:
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
