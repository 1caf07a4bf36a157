"""What a tagger says of an audio file, whole and piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """Consecutive frames of a waveform, as soon as they are known.

    Attributes:
        first_frame: Number of the first of them, from 0 at the waveform's start.
        seconds: How far the audio has been read.
        frame_logits: (n, classes) float32.
        frame_scores: (n, classes) float32, in [0, 1].
        log_weights: Logarithm of each frame's weight in the clip's logits, up to a constant,
            (n, classes) float32; None where all weigh alike.
        frame_embeddings: (n, features) float32.
    """

    first_frame: int
    seconds: float
    frame_logits: Array
    frame_scores: Array
    log_weights: Array | None
    frame_embeddings: Array


@dataclass(frozen=True)
class TagResult:
    """Tags and features of a waveform.

    Attributes:
        seconds: Its length.
        logits: (classes,) float32.
        scores: (classes,) float32, in [0, 1].
        frame_scores: (n, classes) float32, in [0, 1]; None unless asked for.
        embedding: (features,) float32: mean over the frames.
        frame_embeddings: (n, features) float32; None unless asked for.
    """

    seconds: float
    logits: Array
    scores: Array
    frame_scores: Array | None
    embedding: Array
    frame_embeddings: Array | None
