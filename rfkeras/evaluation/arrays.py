"""Scores that another program wrote as .npy files, read and checked for `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.evaluation.inputs import (
    BoolArray,
    FloatArray,
    check_binary,
    check_scored,
)
from rfkeras.reading import load_npy, read_text


@dataclass(frozen=True)
class Arrays:
    """What the files hold, checked.

    Attributes:
        scores: (clips, classes) finite.
        labels: (clips, classes), False where the mask is.
        mask: (clips, classes), True where the label is known.
        decisions: (clips, classes), or None.
        label_names: (classes,) all different.
    """

    scores: FloatArray
    labels: BoolArray
    mask: BoolArray
    decisions: BoolArray | None
    label_names: tuple[str, ...]


def load_arrays(
    predictions: str | Path,
    groundtruth: str | Path,
    decisions: str | Path | None = None,
    mask: str | Path | None = None,
    label_names: str | Path | None = None,
) -> Arrays:
    """Read and check the files of an evaluation.

    Args:
        predictions: .npy (clips, classes) of scores, higher means more likely.
        groundtruth: .npy (clips, classes) of 0 and 1.
        decisions: .npy (clips, classes) of 0 and 1.
        mask: .npy (clips, classes), 1 where the label is known; None: everywhere.
        label_names: UTF-8 text with a name a line; None names them "tag 0", "tag 1", ...

    Raises:
        DatasetError: A file is missing, is not what it should be, or does not fit the
            others.
    """
    scores = _load(predictions, "predictions")
    labels = _load(groundtruth, "groundtruth")
    known = None if mask is None else _load(mask, "mask")
    decided = None if decisions is None else _load(decisions, "decisions")
    files = [predictions, groundtruth, *(path for path in (mask, decisions) if path)]
    try:
        scored = check_scored(scores, labels, known)
        if decided is not None:
            decided = check_binary("decisions", decided, scored.scores.shape)
    except ConfigError as error:
        raise DatasetError(
            f"{error} Files: {', '.join(str(path) for path in files)}."
        ) from error
    classes = scored.scores.shape[1]
    names = (
        tuple(f"tag {tag:0{len(str(classes - 1))}d}" for tag in range(classes))
        if label_names is None
        else _read_names(Path(label_names), classes)
    )
    return Arrays(scored.scores, scored.labels, scored.mask, decided, names)


def _load(path: str | Path, role: str) -> NDArray[np.generic]:
    """The array in a .npy file; never unpickles."""
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{role}: no such file: {path}.")
    try:
        array = load_npy(path)
    except (ValueError, OSError) as error:
        raise DatasetError(
            f"{role}: {path} is not a NumPy array file without objects ({error}). Write it "
            "with numpy.save from an array of numbers."
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DatasetError(
            f"{role}: {path} is an archive (.npz). Save the one array in it as .npy."
        )
    return array


def _read_names(path: Path, classes: int) -> tuple[str, ...]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"label names: cannot read {path} as UTF-8 text: {error}."
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != classes or len(set(names)) != classes:
        raise DatasetError(
            f"label names: {path} must have {classes} different lines, one for each class. "
            f"Received {len(names)} lines, {len(set(names))} of them different."
        )
    return names
