"""Which windows of which clips an evaluation scores, and back from windows to clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError


def window_starts(length: int, window: int) -> NDArray[np.int64]:
    """Starts of the consecutive windows that cover a clip.

    The last window is moved back so that it ends with the clip. A clip no longer than a
    window has one, at 0.

    Args:
        length: Samples in the clip, at least 1.
        window: Samples in a window.
    """
    if length <= window:
        return np.zeros(1, np.int64)
    starts = np.arange(-(-length // window), dtype=np.int64) * window
    starts[-1] = length - window
    return starts


@dataclass
class EvaluationPlan:
    """Maps the windows of an evaluation to the clips they come from.

    Attributes:
        clips: Clips in the split, the unreadable ones included.
        rows: (windows,) row in the split of each window's clip; padding is not in it.
        starts: (windows,) first sample of each window.
        batch_size: Windows in a batch; the last batch is padded with the first windows.
        failed: Rows found unreadable while the windows were read. It fills while the data
            set is iterated, so ask for kept_rows and averages afterwards.
    """

    clips: int
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    batch_size: int
    failed: set[int] = field(default_factory=set)

    @classmethod
    def from_lengths(
        cls, lengths: Sequence[int | None], window: int, batch_size: int
    ) -> EvaluationPlan:
        """The plan for clips of these lengths in samples; None marks an unreadable clip."""
        starts = [
            np.zeros(0, np.int64) if length is None else window_starts(length, window)
            for length in lengths
        ]
        rows = np.repeat(np.arange(len(lengths)), [len(clip) for clip in starts])
        return cls(len(lengths), rows.astype(np.int64), np.concatenate(starts), batch_size)

    @property
    def windows(self) -> int:
        """Windows without padding."""
        return len(self.rows)

    @property
    def batches(self) -> int:
        """Full batches, padding included."""
        return -(-self.windows // self.batch_size)

    @property
    def kept_rows(self) -> NDArray[np.int64]:
        """Rows of the split that have a score, ascending."""
        kept: NDArray[np.int64] = np.setdiff1d(self.rows, sorted(self.failed))
        return kept

    def average(self, window_scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Mean score of each clip over its windows.

        Args:
            window_scores: (windows, classes) in the data set's order; the padding at the
                end may still be there.

        Returns:
            (len(kept_rows), classes) float64: row i belongs to clip kept_rows[i].

        Raises:
            ConfigError: The number of scores fits neither with nor without padding.
        """
        scores = np.asarray(window_scores, np.float64)
        if scores.ndim != 2 or len(scores) not in (
            self.windows,
            self.batches * self.batch_size,
        ):
            raise ConfigError(
                f"The plan has {self.windows} windows ({self.batches * self.batch_size} with "
                f"padding), so it averages scores of shape (windows, classes). Received: "
                f"{scores.shape}."
            )
        sums = np.zeros((self.clips, scores.shape[1]))
        np.add.at(sums, self.rows, scores[: self.windows])
        counts = np.bincount(self.rows, minlength=self.clips)[:, None]
        kept = self.kept_rows
        return sums[kept] / counts[kept]
