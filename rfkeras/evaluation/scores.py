"""The scores of an evaluation in a file, so that models can be compared clip by clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rfkeras.errors import DatasetError
from rfkeras.evaluation.inputs import BoolArray, FloatArray, check_scored
from rfkeras.files import write_npz
from rfkeras.reading import open_npz

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
