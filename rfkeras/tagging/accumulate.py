"""A clip's logits and embedding, from its frames as they come, in constant memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


class RunningPool:
    """What `rfkeras.layers.pooling.pool` makes of all frames, without keeping any.

    Args:
        pooling: One of `rfkeras.layers.pooling.POOLINGS`.
    """

    def __init__(self, pooling: str) -> None:
        self._pooling = pooling
        self._count = 0
        self._peak: Any = -np.inf  # highest logit; of attention, log weight
        self._total: Any = -np.inf if pooling == "log_mean_exp" else 0.0
        self._weight: Any = 0.0

    def add(self, logits: Rows, log_weights: Rows | None = None) -> None:
        """Count in some frames.

        Args:
            logits: (n, classes).
            log_weights: Of attention, the same shape.
        """
        values = logits.astype(np.float64)
        self._count += len(values)
        if self._pooling == "max":
            self._peak = np.maximum(self._peak, values.max(axis=0))
        elif self._pooling == "log_mean_exp":
            self._total = np.logaddexp(self._total, np.logaddexp.reduce(values, axis=0))
        elif log_weights is None:
            self._total = self._total + values.sum(axis=0)
        else:
            exponents = log_weights.astype(np.float64)
            peak = np.maximum(self._peak, exponents.max(axis=0))
            weights, fade = np.exp(exponents - peak), np.exp(self._peak - peak)
            self._total = fade * self._total + (weights * values).sum(axis=0)
            self._weight = fade * self._weight + weights.sum(axis=0)
            self._peak = peak

    def result(self) -> NDArray[np.float64]:
        """The pooled logits of all frames so far, (classes,); there must be one."""
        if self._pooling == "max":
            pooled = self._peak
        elif self._pooling == "log_mean_exp":
            pooled = self._total - np.log(self._count)
        elif self._pooling == "attention":
            pooled = self._total / self._weight
        else:
            pooled = self._total / self._count
        return np.asarray(pooled)


class RunningMean:
    """The mean of rows that come in pieces."""

    def __init__(self) -> None:
        self._count = 0
        self._total: Any = 0.0

    def add(self, values: Rows) -> None:
        """Count in the rows of (n, features)."""
        self._count += len(values)
        self._total = self._total + values.sum(axis=0, dtype=np.float64)

    def result(self) -> NDArray[np.float64]:
        """Mean of all rows so far, (features,); there must be one."""
        return np.asarray(self._total / self._count)
