"""The results of an evaluation: metrics per tag, summary and clip scores, and their files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rfkeras.errors import DatasetError
from rfkeras.evaluation.metrics import BoolArray, FloatArray, check_scored
from rfkeras.tasks import DEFAULT_THRESHOLD, MULTI_LABEL
from rfkeras.utils.files import open_npz, write_npz, write_text
from rfkeras.utils.table import csv_text


@dataclass(frozen=True)
class TagRow:
    """The metrics of one tag on its annotated clips; NaN where undefined.

    Attributes:
        name: Name of the tag.
        annotated: Number of clips with a known label.
        positive: Number of those that have the tag.
        chance: Share of positives, the average precision of a random ranking.
        average_precision: Average precision; `_low` and `_high` bound its 95 % interval.
        roc_auc: ROC-AUC, with bounds as well.
        f1: F1 of the decisions; precision and recall too.
        threshold: Lowest score with which the tag applies; NaN if decisions were given, or if
            the highest score decides (single-label).
        undefined: Why average precision or ROC-AUC is undefined; "" if both are defined.
    """

    name: str
    annotated: int
    positive: int
    chance: float
    average_precision: float
    average_precision_low: float
    average_precision_high: float
    roc_auc: float
    roc_auc_low: float
    roc_auc_high: float
    f1: float
    precision: float
    recall: float
    threshold: float
    undefined: str


@dataclass(frozen=True)
class Report:
    """All metrics of an evaluation.

    Attributes:
        tags: One row per tag, in the order of the label columns.
        summary: Metrics by group and name. The groups are:

            - "counts": clips, tags, annotated and positive labels;
            - "macro": means over the tags. average_precision and roc_auc have bounds `_low`
              and `_high`. Multi-label reports have f1_at_half, the F1 with a threshold of 0.5
              for every tag (NaN if the scores are not probabilities);
            - "tags_in_macro": number of tags in each mean;
            - "micro": metrics of all annotated labels pooled;
            - "chance": metrics that guessing reaches;
            - "bootstrap": samples, seed and confidence;
            - "single_label", only there: accuracy and macro_accuracy (mean recall of the
              classes) with bounds, and log_loss in nats.
        notes: Sentences needed to interpret the metrics correctly.
        task: "multi_label" or "single_label".
        confusion: Single-label: number of clips by true class (rows) and predicted class
            (columns); multi-label: None.
    """

    tags: tuple[TagRow, ...]
    summary: dict[str, dict[str, float]]
    notes: tuple[str, ...]
    task: str = MULTI_LABEL
    confusion: tuple[tuple[int, ...], ...] | None = None

    @property
    def mean_average_precision(self) -> float:
        """Macro mAP."""
        return self.summary["macro"]["average_precision"]

    @property
    def chance_level(self) -> float:
        """mAP of a random ranking, which is the mean share of positives."""
        return self.summary["chance"]["average_precision"]

    @property
    def has_own_thresholds(self) -> bool:
        """Return whether any tag has a threshold other than 0.5."""
        thresholds = [row.threshold for row in self.tags if not math.isnan(row.threshold)]
        return any(threshold != DEFAULT_THRESHOLD for threshold in thresholds)

    def to_json(self, path: str | Path) -> None:
        """Write everything as JSON atomically, with null for undefined metrics."""
        content = _without_nan(dataclasses.asdict(self))
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        write_text(path, text + "\n")

    def to_csv(self, path: str | Path) -> None:
        """Write one CSV row per tag atomically, with empty cells for undefined metrics."""
        columns = [column.name for column in dataclasses.fields(TagRow)]
        rows = [
            {name: _without_nan(cell) for name, cell in dataclasses.asdict(row).items()}
            for row in self.tags
        ]
        write_text(path, csv_text(rows, columns))


def _without_nan(value: object) -> object:
    """Return the value with None for each NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


SCORES_FILE = "scores.npz"


@dataclass(frozen=True)
class ClipScores:
    """Scores and labels of the clips of an evaluation.

    Attributes:
        scores: (clips, classes).
        labels: (clips, classes), False where the mask is.
        mask: (clips, classes), True where the label is known.
        keys: (clips,) Key of each clip; empty if the keys are unknown.
    """

    scores: FloatArray
    labels: BoolArray
    mask: BoolArray
    keys: NDArray[np.str_]

    def has_clips_of(self, other: ClipScores) -> bool:
        """Return whether both have the same clips in the same order with the same labels."""
        pairs = zip(
            (self.keys, self.labels, self.mask),
            (other.keys, other.labels, other.mask),
            strict=True,
        )
        return all(np.array_equal(mine, its) for mine, its in pairs)


def write_scores(
    path: str | Path,
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    keys: Sequence[str] | None = None,
) -> None:
    """Write `scores` (float64), `labels`, `mask` (bool) and `keys` (text) as .npz.

    Args:
        path: The file, written atomically.
        scores: (clips, classes).
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.
        keys: (clips,) Key of each clip.
    """
    scored = check_scored(scores, labels, mask)
    names = [_plain(key) for key in keys or ()]
    arrays = {
        "scores": scored.scores,
        "labels": scored.labels,
        "mask": scored.mask,
        "keys": np.array(names, dtype=np.str_),
    }
    write_npz(path, arrays, compressed=True)


def _plain(key: str) -> str:
    """Return the key without lone surrogates, which encode odd bytes in file names."""
    return key.encode(errors="surrogateescape").decode(errors="replace")


def read_scores(path: str | Path) -> ClipScores:
    """Read a file from `write_scores`, without unpickling.

    Raises:
        DatasetError: The file is missing or has another content.
    """
    try:
        with open_npz(path) as archive:
            scored = check_scored(archive["scores"], archive["labels"], archive["mask"])
            keys = archive["keys"]
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} has no scores of an evaluation: {error}. Evaluate again with "
            "`rfkeras evaluate --run DIR`."
        ) from error
    return ClipScores(scored.scores, scored.labels, scored.mask, keys)
