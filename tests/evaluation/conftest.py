"""Fixtures of the evaluation tests: random scores and the shared data folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rfkeras.evaluation.metrics import BoolArray, FloatArray


@pytest.fixture
def mediaeval(shared_folder: Path) -> Path:
    """Return the folder with the MediaEval 2019 ground truth and submissions."""
    return shared_folder / "datasets" / "mediaeval2019"


@pytest.fixture
def partly_labelled() -> tuple[FloatArray, BoolArray, BoolArray]:
    """Return scores with many ties, labels and mask of 200 clips and 6 tags.

    Tag 3 has no positives, tag 4 no negatives, tag 5 no annotations. Tag 2 has the same score
    for all clips.
    """
    rng = np.random.default_rng(7)
    labels = rng.random((200, 6)) < 0.3
    scores = np.round(rng.random((200, 6)) * 0.6 + 0.3 * labels, 1)
    mask = rng.random((200, 6)) < 0.6
    scores[:, 2] = 0.5
    labels[:, 3] = False
    labels[:, 4] = True
    mask[:, 5] = False
    return scores, labels, mask
