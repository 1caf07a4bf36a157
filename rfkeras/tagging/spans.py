"""Frames as stretches of time, and stretches of time as words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Span = tuple[float, float]
_CLOSED_GAP_S = 2


def spans(active: NDArray[np.bool_], edges: NDArray[np.float64]) -> list[Span]:
    """The stretches of time in which frames are active, in seconds.

    Args:
        active: (frames,).
        edges: (frames + 1,) seconds: frame i lasts from edge i to edge i + 1.
    """
    padded = np.concatenate([[False], active & (np.diff(edges) > 0), [False]])
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    return [
        (float(edges[first]), float(edges[stop]))
        for first, stop in zip(changes[::2], changes[1::2], strict=True)
    ]


def spans_text(parts: Sequence[Span], most: int) -> str:
    """Spans as "0:12-0:47, 1:03-1:20".

    They are rounded outwards to whole seconds; those that are then up to 2 s apart become
    one, for who reads does not care about a missing frame.

    Args:
        parts: Ascending.
        most: How many are written out before "and 3 more".
    """
    whole: list[list[int]] = []
    for start, end in parts:
        first, last = math.floor(start), math.ceil(end)
        if whole and first - whole[-1][1] <= _CLOSED_GAP_S:
            whole[-1][1] = last
        else:
            whole.append([first, last])
    shown = [f"{clock(first)}-{clock(last)}" for first, last in whole[:most]]
    more = [f"and {len(whole) - most} more"] if len(whole) > most else []
    return ", ".join([*shown, *more])


def clock(seconds: float) -> str:
    """Time as min:s, or h:min:s from an hour: 75 is "1:15"."""
    minutes, rest = divmod(math.floor(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
