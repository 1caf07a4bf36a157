"""When the frames of a tagger are: where in the audio each frame's window lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


@dataclass(frozen=True)
class FrameTimes:
    """Times of a model's frames, all in milliseconds from the start of the audio.

    A frame hears the audio of its window, and is about its centre. Windows overlap, and near
    the ends of the audio reach beyond it; spans lie side by side.

    Attributes:
        stride_ms: Between the centres of two frames.
        first_ms: Centre of frame 0's window.
        window_ms: Length of a frame's window (the receptive field); None: without limit.
    """

    stride_ms: float
    first_ms: float
    window_ms: float | None

    def centres_ms(self, n: int) -> Times:
        """Centres of the windows of the first n frames, (n,)."""
        return self.first_ms + self.stride_ms * np.arange(n, dtype=np.float64)

    def starts_ms(self, n: int) -> Times:
        """Starts of the spans of the first n frames, (n,): half a stride before the centre."""
        return np.maximum(self.centres_ms(n) - self.stride_ms / 2, 0.0)

    def ends_ms(self, n: int) -> Times:
        """Ends of the spans of the first n frames, (n,): half a stride after the centre."""
        return self.centres_ms(n) + self.stride_ms / 2
