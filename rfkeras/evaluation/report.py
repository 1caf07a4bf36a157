"""Evaluate scores against labels, and write the report with its plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rfkeras.errors import ConfigError
from rfkeras.evaluation.bootstrap import (
    CONFIDENCE,
    Intervals,
    bootstrap_intervals,
    percentiles,
    resample_counts,
)
from rfkeras.evaluation.metrics import (
    BoolArray,
    FloatArray,
    PerTag,
    Scored,
    average_precision,
    check_binary,
    check_scored,
    check_scores,
    check_single_label,
    check_threshold,
    decide,
    decide_class,
    decision_metrics,
    f1,
    log_loss,
    mean_of_defined,
    micro_metrics,
    positive_rate,
    roc_auc,
)
from rfkeras.evaluation.result import SCORES_FILE, Report, TagRow, write_scores
from rfkeras.tasks import DEFAULT_THRESHOLD, MULTI_LABEL, SINGLE_LABEL, check_task
from rfkeras.utils.text import count, first_few

_SUM_ERROR = 5e-3  # error of the sum of a clip's probabilities in float16

_NAMES_IN_A_NOTE = 8


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    label_names: Sequence[str],
    decisions: ArrayLike | None = None,
    threshold: ArrayLike | None = None,
    bootstrap_samples: int = 1000,
    seed: int = 0,
    task: str = MULTI_LABEL,
) -> Report:
    """Evaluate the scores of a tagger or classifier.

    Args:
        scores: (clips, classes) finite numbers, higher means more likely.
        labels: (clips, classes) of 0 and 1; single-label: one 1 in each row.
        mask: (clips, classes), 1 where the label is known; None: everywhere. Single-label:
            1 everywhere.
        label_names: Name of each class, all different.
        decisions: (clips, classes) of 0 and 1; None: `scores >= threshold`.
        threshold: One number or one number per class, 0.5 if None. Ignored with `decisions`.
        bootstrap_samples: Number of resamples for the confidence intervals; 0 for none.
        seed: Seed of the resampling.
        task: "multi_label", or "single_label" if each clip has exactly one class. Then the
            highest score decides, and decisions and thresholds are not allowed.

    Raises:
        ConfigError: A shape, value or name is not allowed.
    """
    scored = check_scored(scores, labels, mask)
    names = _check_names(label_names, scored.scores.shape[1])
    single = check_task(task) == SINGLE_LABEL
    thresholds, decided = _decide(scored, decisions, threshold, single)
    arrays = (scored.scores, scored.labels, scored.mask)
    shares = decision_metrics(decided, scored.labels, scored.mask)
    metrics = {
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
            undefined=metrics["roc_auc"].reasons[tag],
            **{key: float(metric.values[tag]) for key, metric in metrics.items()},
        )
        for tag, name in enumerate(names)
    )
    chance = metrics.pop("chance")
    summary: dict[str, dict[str, float]] = {
        "counts": {
            "clips": len(scored.scores),
            "tags": len(names),
            "annotated": int(annotated.sum()),
            "positive": int(positive.sum()),
        },
        "macro": _macro(metrics, intervals),
        "tags_in_macro": {key: len(names) - metric.left_out for key, metric in metrics.items()},
        "micro": micro_metrics(*arrays, decided),
        "chance": {"average_precision": chance.macro, "roc_auc": 0.5},
        "bootstrap": {"samples": bootstrap_samples, "seed": seed, "confidence": CONFIDENCE},
    }
    notes = _notes_on_tags(names, metrics)
    notes += _notes_on_resamples(names, intervals, bootstrap_samples)
    if single:
        of_classes = class_metrics(
            *arrays, samples=bootstrap_samples, confidence=CONFIDENCE, seed=seed
        )
        summary["single_label"] = _class_summary(of_classes)
        summary["chance"] |= _class_chance(of_classes)
        notes += _notes_on_classes(of_classes)
        confusion = tuple(tuple(int(n) for n in row) for row in of_classes.confusion)
        return Report(rows, summary, tuple(notes), task, confusion)
    low, high = float(scored.scores.min()), float(scored.scores.max())
    at_half = f1(*arrays, threshold=DEFAULT_THRESHOLD).macro
    summary["macro"]["f1_at_half"] = at_half if low >= 0 and high <= 1 else float("nan")
    if decisions is None:
        notes += _notes_on_scores(low, high)
    return Report(rows, summary, tuple(notes), task)


def _check_names(label_names: Sequence[str], classes: int) -> tuple[str, ...]:
    """Return the class names, checked to be one per class and all different."""
    names = tuple(str(name) for name in label_names)
    if len(names) != classes:
        raise ConfigError(
            f"label_names must have {count(classes, 'name')}, one per class. "
            f"Received: {len(names)}."
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"label_names must differ. Repeated: {', '.join(repeated)}.")
    return names


def _decide(
    scored: Scored, decisions: ArrayLike | None, threshold: ArrayLike | None, single: bool
) -> tuple[FloatArray, BoolArray]:
    """Return thresholds (classes,), NaN if unused, and decisions (clips, classes)."""
    shape = scored.scores.shape
    if single:
        if decisions is not None or threshold is not None:
            raise ConfigError(
                "With task 'single_label' the highest score decides: decisions and threshold "
                "are not allowed. Leave them out, or use task 'multi_label'."
            )
        check_single_label(scored.labels, scored.mask)
        return np.full(shape[1], np.nan), decide_class(scored.scores)
    if decisions is not None:
        return np.full(shape[1], np.nan), check_binary("decisions", decisions, shape)
    thresholds = check_threshold(
        DEFAULT_THRESHOLD if threshold is None else threshold, shape[1]
    )
    return thresholds, decide(scored.scores, thresholds)


def _macro(metrics: Mapping[str, PerTag], intervals: Intervals) -> dict[str, float]:
    """Return the means over the tags with their intervals."""
    macro = {key: metric.macro for key, metric in metrics.items()}
    for key, bounds in (
        ("average_precision", intervals.macro_average_precision),
        ("roc_auc", intervals.macro_roc_auc),
    ):
        macro[f"{key}_low"], macro[f"{key}_high"] = (float(bound) for bound in bounds)
    return macro


def _class_summary(metrics: ClassMetrics) -> dict[str, float]:
    """Return the single-label metrics with their intervals."""
    summary = {"log_loss": metrics.log_loss}
    for key, value, bounds in (
        ("accuracy", metrics.accuracy, metrics.accuracy_interval),
        ("macro_accuracy", metrics.macro_accuracy, metrics.macro_accuracy_interval),
    ):
        low, high = (float(bound) for bound in bounds)
        summary |= {key: value, f"{key}_low": low, f"{key}_high": high}
    return summary


def _class_chance(metrics: ClassMetrics) -> dict[str, float]:
    """Return the metrics that the best guess without looking at the clips reaches."""
    per_class = metrics.confusion.sum(axis=1)
    return {
        "accuracy": float(per_class.max() / per_class.sum()),
        "macro_accuracy": 1 / int((per_class > 0).sum()),
    }


def _notes_on_tags(names: Sequence[str], metrics: Mapping[str, PerTag]) -> list[str]:
    """Name the tags that a macro mean leaves out, and why."""
    notes = []
    for key, title in (
        ("average_precision", "average precision or F1"),
        ("roc_auc", "ROC-AUC"),
    ):
        metric = metrics[key]
        if metric.left_out:
            why = [f"{n} ({r})" for n, r in zip(names, metric.reasons, strict=True) if r]
            notes.append(
                f"No {title} for {metric.left_out} of {count(len(names), 'tag')}, which the "
                f"macro mean leaves out: {first_few(why, _NAMES_IN_A_NOTE)}."
            )
    return notes


def _notes_on_resamples(names: Sequence[str], intervals: Intervals, samples: int) -> list[str]:
    """Name the tags that were missing from some of the resamples."""
    partly = [
        f"{name} ({held} of {samples})"
        for name, held in zip(names, intervals.resamples_with_tag, strict=True)
        if 0 < held < samples
    ]
    if not partly:
        return []
    return [
        "With few positives, some resamples had none. The interval is based on the others: "
        f"{first_few(partly, _NAMES_IN_A_NOTE)}."
    ]


def _notes_on_scores(low: float, high: float) -> list[str]:
    """Warn if scores between `low` and `high` are not probabilities."""
    if low >= 0 and high <= 1:
        return []
    return [
        f"The scores range from {low:.3g} to {high:.3g}, so they are not probabilities. F1, "
        "precision and recall compare them with the threshold unchanged."
    ]


def _notes_on_classes(metrics: ClassMetrics) -> list[str]:
    """Warn if the scores of a single-label task are not probabilities."""
    if not math.isnan(metrics.log_loss):
        return []
    return [
        "The scores of a clip do not sum to 1, so they are not probabilities of exclusive "
        "classes, and there is no log loss."
    ]


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of the most likely class.

    Attributes:
        accuracy: Share of the clips whose highest score is at the right class.
        accuracy_interval: (2,) Its bootstrap interval.
        macro_accuracy: Mean recall of the classes that have clips, also called balanced or
            class-wise accuracy.
        macro_accuracy_interval: (2,) Its bootstrap interval.
        log_loss: Mean of -log(score of the right class) over the clips, in nats, with scores
            clipped to 1e-7; NaN if the scores of a clip do not sum to 1.
        confusion: (classes, classes) Number of clips by true class (rows) and predicted class
            (columns).
    """

    accuracy: float
    accuracy_interval: FloatArray
    macro_accuracy: float
    macro_accuracy_interval: FloatArray
    log_loss: float
    confusion: NDArray[np.int64]


def class_metrics(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ClassMetrics:
    """Compute accuracy, macro accuracy, log loss and confusion matrix.

    The intervals are percentiles over resamples of the clips. Unlike those of average
    precision they need no reflection, because resampling does not bias a mean over clips.

    Args:
        scores: (clips, classes) finite numbers. The highest decides, the first of equals.
        labels: (clips, classes) of 0 and 1, one 1 in each row.
        mask: (clips, classes) of 1; None means the same.
        samples: Number of resamples for the intervals; with 0 their bounds are NaN.
        confidence: Share of the resamples inside an interval.
        seed: Seed of the resampling.

    Raises:
        ConfigError: A shape or value is not allowed, or a clip does not have exactly one
            class.
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
    return ClassMetrics(
        accuracy=float(right.mean()),
        accuracy_interval=percentiles(accuracies, confidence),
        macro_accuracy=mean_of_defined(_recall(np.diag(confusion), confusion.sum(axis=1))),
        macro_accuracy_interval=percentiles(macros, confidence),
        log_loss=log_loss(values, labels, 1, SINGLE_LABEL) if probable else float("nan"),
        confusion=confusion,
    )


def _recall(hits: FloatArray, clips: FloatArray) -> FloatArray:
    """Divide, with NaN for classes without clips."""
    return np.where(clips > 0, hits / np.maximum(clips, 1), np.nan)


def _mean_recall(hits: FloatArray, clips: FloatArray) -> FloatArray:
    """Return the mean recall (resamples,) over the classes in each resample."""
    return np.asarray(np.nanmean(_recall(hits, clips), axis=1))


def write_report(
    report: Report,
    folder: str | Path,
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    history: Mapping[str, Sequence[float | str]] | None = None,
    monitor: str | None = None,
    first_epoch: int = 1,
    keys: Sequence[str] | None = None,
) -> tuple[Path, ...]:
    """Write tables, scores and plots to a folder, each file atomically.

    report.json comes last, so the other files are complete if it exists.

    Args:
        report: The report that `evaluate` returned for these arrays.
        folder: Folder to write to, created if needed.
        scores: (clips, classes), for the precision-recall curves.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.
        history: Columns of the training log, for the training curves. Without epochs there is
            no such plot.
        monitor: Column of the history that selects the best epoch; see `training_curves`.
        first_epoch: First epoch that may be the best.
        keys: (clips,) Key of each clip, stored with its scores.

    Returns:
        Paths of the files: per_tag.csv, scores.npz (see `write_scores`), the plots and
        report.json.

    Raises:
        ConfigError: An array does not fit the report, or the history is malformed.
    """
    # Matplotlib loads only if plots are needed.
    from rfkeras.evaluation import plots
    from rfkeras.utils.plotting import save_png

    folder = Path(folder)
    drawn = {
        "per_tag.png": plots.per_tag_bars(report),
        "precision_recall.png": plots.precision_recall_curves(report, scores, labels, mask),
    }
    if report.confusion is not None:
        drawn["confusion.png"] = plots.confusion_matrix(report)
    if history and any(len(column) for column in history.values()):
        drawn["training.png"] = plots.training_curves(history, monitor, first_epoch)
    report.to_csv(folder / "per_tag.csv")
    write_scores(folder / SCORES_FILE, scores, labels, mask, keys)
    for name, figure in drawn.items():
        save_png(figure, folder / name)
    report.to_json(folder / "report.json")
    names = ("per_tag.csv", SCORES_FILE, *drawn, "report.json")
    return tuple(folder / name for name in names)
