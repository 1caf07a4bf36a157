"""Curves of pitch and level over a part, and how MIDI files and samples follow them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rfkeras.synthesis.song import Note

BEND_RANGE_CENTS = 200.0
"""Largest bend in either direction; the range of General MIDI's pitch wheel."""

_STEP_S = 0.01
_WHEEL_CENTRE = 8192

Points = NDArray[np.float64]


def _no_points() -> Points:
    return np.zeros((0, 2))


@dataclass(frozen=True, eq=False)
class Expression:
    """The notes of a part and its curves. Times are in seconds on the clock of the notes.

    The values of a curve are linear between its points, and constant before the first and
    after the last one. A curve without points is 0 everywhere.

    Attributes:
        notes: Notes, sorted by start.
        bend_cents: (n, 2) time and bend in cents, within BEND_RANGE_CENTS. It applies to
            every note that sounds at the time.
        level_db: (n, 2) time and level in decibels, at most 0.
    """

    notes: tuple[Note, ...]
    bend_cents: Points = field(default_factory=_no_points)
    level_db: Points = field(default_factory=_no_points)


def value_at(curve: Points, times: Points) -> Points:
    """Return the values of a curve at some times.

    Args:
        curve: (n, 2) times and values; see Expression.
        times: (m,) seconds.

    Returns:
        (m,) values.
    """
    if len(curve) == 0:
        return np.zeros(len(times))
    return np.asarray(np.interp(times, curve[:, 0], curve[:, 1]), dtype=np.float64)


def bend_events(
    bend_cents: Points, tuning_cents: float, seconds: tuple[float, float]
) -> list[tuple[float, int]]:
    """Convert a bend to positions of the MIDI pitch wheel, whose range is two semitones.

    Args:
        bend_cents: (n, 2) times and cents.
        tuning_cents: Tuning of the part, which is added. Beyond the range, the wheel stops.
        seconds: First and last time.

    Returns:
        (time, position -8192..8191), at most every 10 ms and only where it changes.
    """
    times = _grid(bend_cents, seconds)
    cents = value_at(bend_cents, times) + tuning_cents
    wheel = np.rint(cents * (_WHEEL_CENTRE / BEND_RANGE_CENTS))
    return _changes(times, np.clip(wheel, -_WHEEL_CENTRE, _WHEEL_CENTRE - 1))


def expression_events(
    level_db: Points, seconds: tuple[float, float]
) -> list[tuple[float, int]]:
    """Convert a level to values of MIDI controller 11, whose gain is its square.

    Args:
        level_db: (n, 2) times and decibels.
        seconds: First and last time.

    Returns:
        (time, value 0..127), at most every 10 ms and only where it changes.
    """
    times = _grid(level_db, seconds)
    values = np.rint(127 * 10 ** (value_at(level_db, times) / 40))
    return _changes(times, np.clip(values, 0, 127))


def _grid(curve: Points, seconds: tuple[float, float]) -> Points:
    """Return times at which a curve is sampled: its own points and every 10 ms."""
    first, last = seconds
    if len(curve) == 0:
        return np.array([first])
    even = np.arange(first, last, _STEP_S)
    inside = curve[(curve[:, 0] > first) & (curve[:, 0] < last), 0]
    return np.asarray(np.unique(np.concatenate([even, inside])), dtype=np.float64)


def _changes(times: Points, values: Points) -> list[tuple[float, int]]:
    """Return the first value and every later one that differs from the one before."""
    changed = np.append(True, values[1:] != values[:-1])
    return [
        (float(time), int(value))
        for time, value in zip(times[changed], values[changed], strict=True)
    ]


def apply_bend(
    samples: NDArray[np.float32], bend_cents: Points, rate_hz: int, start: float
) -> NDArray[np.float32]:
    """Bend the pitch of one note, by reading its samples faster or slower.

    Args:
        samples: (n,) the note, from its start. At its end there should be some sound to
            spare, because a bend upwards uses more of it; what lacks is silence.
        bend_cents: (m, 2) times and cents.
        rate_hz: Sampling rate.
        start: Time of the first sample in seconds.

    Returns:
        (n,) samples.
    """
    count = len(samples)
    if len(bend_cents) == 0 or count == 0:
        return samples
    cents = value_at(bend_cents, start + np.arange(count) / rate_hz)
    if not cents.any():
        return samples
    speed = 2 ** (cents / 1200)
    places = np.concatenate([[0.0], np.cumsum(speed[:-1])])
    whole = np.minimum(places.astype(np.int64), count)
    part = places - whole
    padded = np.pad(samples.astype(np.float64), (1, 3))
    before, here, after, later = (padded[whole + number] for number in range(4))
    # Cubic interpolation (Catmull-Rom).
    slope = (after - before) / 2
    square = before - 2.5 * here + 2 * after - later / 2
    cube = 1.5 * (here - after) + (later - before) / 2
    bent = here + part * (slope + part * (square + part * cube))
    return np.where(places < count, bent, 0.0).astype(np.float32)


def apply_level(
    samples: NDArray[np.float32], level_db: Points, rate_hz: int, start: float
) -> NDArray[np.float32]:
    """Scale a part by its level.

    Args:
        samples: (n,) the part.
        level_db: (m, 2) times and decibels.
        rate_hz: Sampling rate.
        start: Time of the first sample in seconds.

    Returns:
        (n,) samples.
    """
    if len(level_db) == 0:
        return samples
    level = value_at(level_db, start + np.arange(len(samples)) / rate_hz)
    return (samples * 10 ** (level / 20)).astype(np.float32)
