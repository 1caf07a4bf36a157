"""What a reader of a report has to know, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rfkeras.errors import ConfigError
from rfkeras.evaluation.bootstrap import (
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
    log_loss,
    mean_of_defined,
    micro_metrics,
    positive_rate,
    roc_auc,
)
from rfkeras.evaluation.result import SCORES_FILE, Report, TagRow, write_scores
from rfkeras.tasks import HALF, MULTI_LABEL, SINGLE_LABEL, check_task

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


__all__ = ["Report", "TagRow", "evaluate", "write_report"]

CONFIDENCE = 0.95


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
    """Evaluate a tagger's or a classifier's scores.

    Args:
        scores: (clips, classes) finite numbers, higher means more likely.
        labels: (clips, classes) of 0 and 1; single-label: one 1 in each row.
        mask: (clips, classes), 1 where the label is known; None: everywhere. Single-label:
            1 everywhere.
        label_names: Name of each class, all different.
        decisions: (clips, classes) of 0 and 1; None: `scores >= threshold`.
        threshold: One number, or one for each class, 0.5 if None; not used with decisions.
        bootstrap_samples: Resamples behind the confidence intervals; 0 leaves them out.
        seed: Seed of the resampling.
        task: "multi_label", or "single_label" where each clip has exactly one class: then
            the highest score decides, and there are neither decisions nor thresholds.

    Raises:
        ConfigError: A shape, value or name is not allowed.
    """
    scored = check_scored(scores, labels, mask)
    names = _check_names(label_names, scored.scores.shape[1])
    single = check_task(task) == SINGLE_LABEL
    thresholds, decided = _decide(scored, decisions, threshold, single)
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
    notes = notes_on_tags(names, figures)
    notes += notes_on_resamples(names, intervals, bootstrap_samples)
    if single:
        of_classes = class_figures(
            *arrays, samples=bootstrap_samples, confidence=CONFIDENCE, seed=seed
        )
        summary["single_label"] = _class_summary(of_classes)
        summary["chance"] |= _class_chance(of_classes)
        notes += notes_on_classes(of_classes)
        confusion = tuple(tuple(int(n) for n in row) for row in of_classes.confusion)
        return Report(rows, summary, tuple(notes), task, confusion)
    low, high = float(scored.scores.min()), float(scored.scores.max())
    at_half = decision_metrics(decide(scored.scores, HALF), scored.labels, scored.mask).f1
    summary["macro"]["f1_at_half"] = at_half.macro if low >= 0 and high <= 1 else float("nan")
    if decisions is None:
        notes += notes_on_scores(low, high)
    return Report(rows, summary, tuple(notes), task)


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
    """Write tables, scores and plots into a folder, each whole or not at all.

    report.json comes last: where it is, the others are.

    Args:
        report: What `evaluate` returned for these arrays.
        folder: Where to; made if needed.
        scores: (clips, classes), for the precision-recall curves.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.
        history: Columns of the training log, for the training curves; None or no epochs:
            no such plot.
        monitor: Column of the history that tells the best epoch, as for `training_curves`.
        first_epoch: The first epoch that may be the best.
        keys: (clips,) key of each clip, kept beside its scores.

    Returns:
        The files written: per_tag.csv, scores.npz (see `write_scores`), the plots and
        report.json.

    Raises:
        ConfigError: An array does not fit the report, or the history is malformed.
    """
    # Here, so that matplotlib loads only when plots are wanted.
    from rfkeras.evaluation import plots
    from rfkeras.evaluation.plots import confusion_matrix, training_curves
    from rfkeras.utils.plotting import save_png

    folder = Path(folder)
    figures = {
        "per_tag.png": plots.per_tag_bars(report),
        "precision_recall.png": plots.precision_recall_curves(report, scores, labels, mask),
    }
    if report.confusion is not None:
        figures["confusion.png"] = confusion_matrix(report)
    if history and any(len(column) for column in history.values()):
        figures["training.png"] = training_curves(history, monitor, first_epoch)
    report.to_csv(folder / "per_tag.csv")
    write_scores(folder / SCORES_FILE, scores, labels, mask, keys)
    for name, figure in figures.items():
        save_png(figure, folder / name)
    report.to_json(folder / "report.json")
    names = ("per_tag.csv", SCORES_FILE, *figures, "report.json")
    return tuple(folder / name for name in names)


def _decide(
    scored: Scored, decisions: ArrayLike | None, threshold: ArrayLike | None, single: bool
) -> tuple[FloatArray, BoolArray]:
    """Thresholds (classes,), NaN where they do not decide, and decisions (clips, classes)."""
    shape = scored.scores.shape
    if single:
        if decisions is not None or threshold is not None:
            raise ConfigError(
                "With task 'single_label' the highest score decides. Leave out decisions and "
                "threshold, or use task 'multi_label'."
            )
        check_single_label(scored.labels, scored.mask)
        return np.full(shape[1], np.nan), decide_class(scored.scores)
    if decisions is not None:
        return np.full(shape[1], np.nan), check_binary("decisions", decisions, shape)
    thresholds = check_threshold(HALF if threshold is None else threshold, shape[1])
    return thresholds, decide(scored.scores, thresholds)


def _class_summary(figures: ClassFigures) -> dict[str, float]:
    summary = {"log_loss": figures.log_loss}
    for key, value, bounds in (
        ("accuracy", figures.accuracy, figures.accuracy_interval),
        ("macro_accuracy", figures.macro_accuracy, figures.macro_accuracy_interval),
    ):
        low, high = (float(bound) for bound in bounds)
        summary |= {key: value, f"{key}_low": low, f"{key}_high": high}
    return summary


def _class_chance(figures: ClassFigures) -> dict[str, float]:
    """What the best answer that does not look at the clip reaches."""
    per_class = figures.confusion.sum(axis=1)
    return {
        "accuracy": float(per_class.max() / per_class.sum()),
        "macro_accuracy": 1 / int((per_class > 0).sum()),
    }


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
