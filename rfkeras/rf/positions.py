"""The positions of a map at which the effective receptive field is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError
from rfkeras.rf.axis import AxisField

Pair = tuple[int, int]
Positions = tuple[Pair, ...]

AXES = ("time", "frequency")


@dataclass(frozen=True)
class AxisMap:
    """One axis of a map over a spectrogram of known size.

    Attributes:
        field: Exact receptive field of its positions; None: unlimited.
        positions: Length of the map.
        pixels: Length of the spectrogram.
    """

    field: AxisField | None
    positions: int
    pixels: int

    @property
    def size(self) -> int:
        """Size of the exact window in pixels; that of the spectrogram if unlimited."""
        return self.pixels if self.field is None else self.field.size

    def window(self, position: int) -> Pair:
        """Return the window of a position: first pixel and end pixel (exclusive).

        If windows differ in length, as after up-sampling, shorter windows are extended to
        `size` pixels around their middle.
        """
        if self.field is None:
            return 0, self.pixels
        first, stop = self.field.window(position)
        first -= (self.field.size - (stop - first)) // 2
        return first, first + self.field.size

    def fits(self, position: int) -> bool:
        """Return whether the window of a position is inside the spectrogram."""
        first, stop = self.window(position)
        return first >= 0 and stop <= self.pixels

    def inside(self) -> list[int]:
        """Return the positions with limited windows inside the spectrogram."""
        if self.field is None:
            return []
        return [position for position in range(self.positions) if self.fits(position)]

    def centre(self, position: int) -> float:
        """Return the middle of the window in pixels, rounded to half pixels.

        If the field is unlimited, this is the position's relative place on the spectrogram.
        """
        if self.field is not None:
            first, stop = self.window(position)
            return (first + stop) / 2
        return round(2 * (position + 0.5) * self.pixels / self.positions) / 2

    @property
    def middle(self) -> int:
        """Position whose window is nearest to the middle of the spectrogram."""
        distances = [abs(self.centre(p) - self.pixels / 2) for p in range(self.positions)]
        return int(np.argmin(distances))

    def seen(self, positions: Sequence[int]) -> Pair:
        """Return the part of the window that any of these positions sees.

        It is counted from the first pixel of the window; the rest is outside the
        spectrogram for all positions.
        """
        starts = [self.window(position)[0] for position in positions]
        return max(0, -max(starts)), min(self.size, self.pixels - min(starts))


def choose_positions(axes: tuple[AxisMap, AxisMap], number: int) -> Positions:
    """Choose about this many positions, spread evenly over those with windows inside.

    On an axis where no window fits into the spectrogram, all of them are at the middle.
    """
    free = [len(axis.inside()) or 1 for axis in axes]
    number = min(number, free[0] * free[1])
    rows = round((number * free[1] / free[0]) ** 0.5)
    rows = min(max(rows, -(-number // free[0]), 1), free[1], number)
    counts = (number // rows, rows)
    times, bands = (
        _spread(axis.inside() or [axis.middle], count)
        for axis, count in zip(axes, counts, strict=True)
    )
    return tuple((time, band) for time in times for band in bands)


def _spread(allowed: list[int], count: int) -> list[int]:
    """Return the middle positions of this many equal parts."""
    return [allowed[int((part + 0.5) * len(allowed) / count)] for part in range(count)]


def check_positions(axes: tuple[AxisMap, AxisMap], positions: Sequence[Any]) -> Positions:
    """Validate positions chosen by the caller.

    Raises:
        ConfigError: A position is not a pair of integers on the map, or is given twice; or
            the windows cannot be aligned with each other.
    """
    checked: list[Pair] = []
    for position in positions:
        pair = tuple(position) if isinstance(position, Sequence | np.ndarray) else ()
        if len(pair) != 2 or not all(
            isinstance(index, int | np.integer)
            and not isinstance(index, bool)
            and 0 <= index < axis.positions
            for index, axis in zip(pair, axes, strict=True)
        ):
            raise ConfigError(
                "Each position must be a pair of whole numbers (time, frequency) on the map, "
                f"from (0, 0) to ({axes[0].positions - 1}, {axes[1].positions - 1}). "
                f"Received: {position!r}."
            )
        checked.append((int(pair[0]), int(pair[1])))
    if not checked or len(set(checked)) < len(checked):
        raise ConfigError(
            "positions must contain at least one position, and none twice. "
            f"Received: {positions!r}."
        )
    for number, axis in enumerate(axes):
        indices = sorted({pair[number] for pair in checked})
        if axis.field is None and len(indices) > 1:
            raise ConfigError(
                f"The receptive field is unlimited along {AXES[number]}, so the windows of "
                f"several positions cannot be aligned. Give all positions the same index "
                f"there, such as {axis.middle}. Received: {indices}."
            )
        for index in indices:
            first, stop = axis.window(index)
            if stop <= 0 or first >= axis.pixels:
                raise ConfigError(
                    f"Position {index} along {AXES[number]} sees only padding: its window "
                    f"is pixels {first} to {stop - 1} of 0 to {axis.pixels - 1}."
                )
    return tuple(checked)


def disjoint_groups(axes: tuple[AxisMap, AxisMap], positions: Positions) -> list[Positions]:
    """Group positions so that windows within a group do not overlap.

    The gradients of a group can be computed together, because each pixel belongs to only one
    of its windows.
    """
    groups: list[list[Pair]] = []
    for position in positions:
        for group in groups:
            if not any(_overlap(axes, position, other) for other in group):
                group.append(position)
                break
        else:
            groups.append([position])
    return [tuple(group) for group in groups]


def group_masks(
    axes: tuple[AxisMap, AxisMap], groups: Sequence[Positions]
) -> NDArray[np.float32]:
    """Return (groups, time', frequency') masks: 1 at the positions of each group, else 0."""
    masks = np.zeros((len(groups), axes[0].positions, axes[1].positions), np.float32)
    for mask, group in zip(masks, groups, strict=True):
        mask[tuple(np.transpose(group))] = 1.0
    return masks


def _overlap(axes: tuple[AxisMap, AxisMap], one: Pair, other: Pair) -> bool:
    windows = [
        (axis.window(a), axis.window(b)) for axis, a, b in zip(axes, one, other, strict=True)
    ]
    return all(a[0] < b[1] and b[0] < a[1] for a, b in windows)
