"""The figures of an evaluation, as rows and summary, and as JSON and CSV files."""

from __future__ import annotations

import csv
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
from rfkeras.tasks import HALF, MULTI_LABEL
from rfkeras.utils.files import open_npz, replacing, write_npz


@dataclass(frozen=True)
class TagRow:
    """The figures of one tag; NaN where undefined, on the tag's annotated clips only.

    Attributes:
        name: The tag.
        annotated: Number of clips with a known label.
        positive: Number of those that have the tag.
        chance: Share of positives: the average precision of a random ranking.
        average_precision: With `_low` and `_high`, the bounds of its 95 % interval.
        roc_auc: With `_low` and `_high` likewise.
        f1: From the decisions, as precision and recall.
        threshold: Score from which on the tag is decided; NaN if decisions were given, or
            if the highest score decides (single-label).
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
    """All figures of an evaluation.

    Attributes:
        tags: One row per tag, in the order of the label columns.
        summary: Tables of numbers by name. "counts": clips, tags, annotated and positive
            entries; "macro": means over the tags, with `_low` and `_high` for
            average_precision and roc_auc, and for multi-label f1_at_half, the F1 with a
            threshold of 0.5 for every tag (NaN if the scores are no probabilities);
            "tags_in_macro": how many tags each mean is over; "micro": all annotated entries
            pooled; "chance": what guessing reaches; "bootstrap": samples, seed, confidence;
            and for single-label alone "single_label": accuracy and macro_accuracy (mean
            recall of the classes), each with `_low` and `_high`, and log_loss in nats.
        notes: What a reader of the figures has to know, in sentences.
        task: "multi_label" or "single_label".
        confusion: Single-label: for each class, how many of its clips were taken for each
            class; multi-label: None.
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
        """The label prior: the mAP of a random ranking."""
        return self.summary["chance"]["average_precision"]

    @property
    def has_own_thresholds(self) -> bool:
        """Whether a tag is decided from another score than 0.5."""
        thresholds = [row.threshold for row in self.tags if not math.isnan(row.threshold)]
        return any(threshold != HALF for threshold in thresholds)

    def to_json(self, path: str | Path) -> None:
        """Write everything as JSON, undefined figures as null; whole or not at all."""
        content = _without_nan(dataclasses.asdict(self))
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def to_csv(self, path: str | Path) -> None:
        """Write a row per tag as CSV, undefined figures as empty cells; whole or not at all."""
        columns = [column.name for column in dataclasses.fields(TagRow)]
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            for row in self.tags:
                cells = dataclasses.asdict(row)
                writer.writerow({name: _without_nan(cell) for name, cell in cells.items()})


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


SCORES_FILE = "scores.npz"


@dataclass(frozen=True)
class ClipScores:
    """Scores and truth of the clips of an evaluation.

    Attributes:
        scores: (clips, classes).
        labels: (clips, classes), False where the mask is.
        mask: (clips, classes), True where the label is known.
        keys: (clips,) key of each clip; empty where they were not known.
    """

    scores: FloatArray
    labels: BoolArray
    mask: BoolArray
    keys: NDArray[np.str_]

    def has_clips_of(self, other: ClipScores) -> bool:
        """Whether both hold the same clips, in the same order, with the same labels."""
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
        path: The file; written whole or not at all.
        scores: (clips, classes).
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.
        keys: (clips,) key of each clip.
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
    """The key without the lone surrogates that stand for odd bytes in names of files."""
    return key.encode(errors="surrogateescape").decode(errors="replace")


def read_scores(path: str | Path) -> ClipScores:
    """Read what `write_scores` wrote; nothing is unpickled.

    Raises:
        DatasetError: The file is missing or is not such a file.
    """
    try:
        with open_npz(path) as archive:
            scored = check_scored(archive["scores"], archive["labels"], archive["mask"])
            keys = archive["keys"]
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} holds no scores of an evaluation: {error}. Evaluate anew by "
            "`rfkeras evaluate --run DIR`."
        ) from error
    return ClipScores(scored.scores, scored.labels, scored.mask, keys)
