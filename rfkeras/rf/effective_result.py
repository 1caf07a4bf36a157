"""The result of `effective_receptive_field`: where in its window a model actually looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.rf.axis import AxisField
from rfkeras.rf.positions import AXES, AxisMap, Pair, Positions

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EffectiveField:
    """Average gradient energy inside the window of one position.

    All values refer to windows centred on the exact window. Their size can be any real
    number; a pixel that a window covers partly counts partly. Axis 0 is time (pixels are
    frames), axis 1 is frequency (mel bands).

    Attributes:
        energy: (box time, box frequency) float64 for all tags together; the sum is 1. The
            box is the exact window. On an axis where that is unlimited, or extends beyond
            the spectrogram at every position, the box is the part on the spectrogram.
        tags: The energy of each requested tag; each sum is 1.
        axes: The two axes of the map over the spectrogram, with their exact fields.
        offset: First pixel of the box relative to the window's first pixel, on both axes.
        positions: (time, frequency) of the measured positions on the map.
        clips: Number of inputs.
        clipped: Number of positions whose windows extend beyond the spectrogram; only
            energy inside it is counted.
        outside_share: Share of the energy measured outside the exact windows. It is 0
            unless the exact receptive field is wrong.
        scale: Units of the spectrogram; None if unknown.
    """

    energy: FloatArray
    tags: Mapping[str, FloatArray]
    axes: tuple[AxisMap, AxisMap]
    offset: Pair
    positions: Positions
    clips: int
    clipped: int
    outside_share: float
    scale: SpectrogramScale | None = None

    @property
    def time(self) -> AxisField | None:
        """Exact receptive field along time, in frames; None: unlimited."""
        return self.axes[0].field

    @property
    def frequency(self) -> AxisField | None:
        """Exact receptive field along frequency, in mel bands; None: unlimited."""
        return self.axes[1].field

    def for_tag(self, tag: str) -> EffectiveField:
        """Return the field of a single tag.

        Raises:
            ConfigError: The tag was not measured.
        """
        if tag not in self.tags:
            if not self.tags:
                raise ConfigError(
                    f"There is no field of tag {tag!r}, because no tags were measured. Call "
                    'effective_receptive_field with tags="all" or with their names.'
                )
            raise ConfigError(unknown_name("tag", tag, self.tags))
        return replace(self, energy=self.tags[tag], tags={tag: self.tags[tag]})

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the exact window on both axes, in pixels from the box's first edge."""
        time, frequency = (
            axis.centre(position) - axis.window(position)[0] - offset
            for axis, position, offset in zip(
                self.axes, self.positions[0], self.offset, strict=True
            )
        )
        return time, frequency

    def box(self, position: Pair) -> tuple[Pair, Pair]:
        """Return the place of the box on the spectrogram for a position.

        Returns:
            ((first frame, stop), (first band, stop)); it can extend beyond the spectrogram.
        """
        first_frame, first_band = (
            axis.window(index)[0] + offset
            for axis, index, offset in zip(self.axes, position, self.offset, strict=True)
        )
        frames, bands = self.energy.shape
        return (first_frame, first_frame + frames), (first_band, first_band + bands)

    def share_within(
        self, window_frames: float | None = None, window_bands: float | None = None
    ) -> float:
        """Return the share of the energy inside a centred window.

        Args:
            window_frames: Length in frames; None: unlimited along time.
            window_bands: Height in mel bands; None: unlimited along frequency.

        Raises:
            ConfigError: A size is negative.
        """
        weights = []
        for axis, size in enumerate((window_frames, window_bands)):
            if size is not None and not size >= 0:
                raise ConfigError(
                    f"The window's size along {AXES[axis]} must be at least 0 pixels. "
                    f"Received: {size!r}."
                )
            weights.append(self._covered(axis, float("inf") if size is None else size))
        share = float(weights[0] @ self.energy @ weights[1])
        return min(1.0, share)

    def curve(self, axis: int) -> tuple[FloatArray, FloatArray]:
        """Return the share of the energy by size of a centred window, on one axis.

        Args:
            axis: 0 time, 1 frequency. The window is unlimited on the other axis.

        Returns:
            (sizes, shares): 0, 1, 2, ... pixels up to the whole box, and the share inside
            each window; it grows linearly between two sizes.
        """
        length, middle = self.energy.shape[axis], self.centre[axis]
        sizes = np.arange(np.ceil(2 * max(middle, length - middle)) + 1)
        marginal = self.energy.sum(axis=1 - axis)
        shares = np.array([self._covered(axis, size) @ marginal for size in sizes])
        shares = np.maximum.accumulate(shares / shares[-1])
        return sizes, shares

    def window(self, share: float) -> tuple[float, float]:
        """Return the size of the smallest centred window with a share of the energy.

        Each axis is measured separately, with a window that is unlimited on the other axis.

        Args:
            share: Above 0, at most 1.

        Returns:
            (frames, mel bands); compare these with the size of the exact receptive field.

        Raises:
            ConfigError: The share is out of range.
        """
        if not 0 < share <= 1:
            raise ConfigError(f"share must be above 0 and at most 1. Received: {share!r}.")
        frames, bands = (_first_reaching(*self.curve(axis), share) for axis in (0, 1))
        return frames, bands

    def radius(self, share: float = 0.95) -> tuple[float, float]:
        """Return half the size of `window(share)`: (frames, mel bands)."""
        frames, bands = self.window(share)
        return frames / 2, bands / 2

    def span_ms(self, frames: float) -> float | None:
        """Return the milliseconds of audio that this many frames cover.

        Frames are one hop apart, and each covers a whole analysis window. The number of
        frames can be fractional.

        Returns:
            Milliseconds; None if the spectrogram's units are unknown.
        """
        if self.scale is None:
            return None
        return self.scale.window_ms + max(0.0, frames - 1) * self.scale.hop_ms

    def radius_ms(self, share: float = 0.95) -> float | None:
        """Return the radius along time as a distance between frames, in milliseconds."""
        return None if self.scale is None else self.radius(share)[0] * self.scale.hop_ms

    def ratio(self, share: float = 0.95) -> tuple[float | None, float | None]:
        """Return the size of `window(share)` relative to the exact field.

        Returns:
            (time, frequency); None on an unlimited axis.
        """
        time, frequency = (
            None if axis.field is None else size / axis.field.size
            for axis, size in zip(self.axes, self.window(share), strict=True)
        )
        return time, frequency

    def box_curve(self, steps: int = 100) -> tuple[FloatArray, FloatArray]:
        """Return the share of the energy in the exact window, shrunk on both axes.

        Returns:
            (factors, shares): steps + 1 factors from 0 to 1.
        """
        factors = np.linspace(0.0, 1.0, steps + 1)
        full = [2 * max(c, n - c) for c, n in zip(self.centre, self.energy.shape, strict=True)]
        shares = [self.share_within(f * full[0], f * full[1]) for f in factors]
        return factors, np.maximum.accumulate(np.array(shares))

    @property
    def standard_deviation(self) -> tuple[float, float]:
        """Standard deviation of the energy: (frames, mel bands)."""
        deviations = []
        for axis in (0, 1):
            marginal, at = self.energy.sum(axis=1 - axis), np.arange(self.energy.shape[axis])
            mean = marginal @ at
            deviations.append(float(np.sqrt(marginal @ (at - mean) ** 2)))
        return deviations[0], deviations[1]

    def to_dict(self) -> dict[str, Any]:
        """Return the measures, without the maps, ready for JSON."""
        return {
            "exact_frames": None if self.time is None else self.time.size,
            "exact_bands": None if self.frequency is None else self.frequency.size,
            **self._measures(),
            "outside_share": self.outside_share,
            "clips": self.clips,
            "positions": [list(position) for position in self.positions],
            "clipped": self.clipped,
            "tags": {tag: self.for_tag(tag)._measures() for tag in self.tags},
        }

    def _measures(self) -> dict[str, Any]:
        measures: dict[str, Any] = {}
        for percent in (50, 95):
            frames, bands = self.window(percent / 100)
            measures[f"window_{percent}_frames"] = frames
            measures[f"window_{percent}_bands"] = bands
            measures[f"window_{percent}_ms"] = self.span_ms(frames)
        frames, bands = self.standard_deviation
        return {**measures, "deviation_frames": frames, "deviation_bands": bands}

    def _covered(self, axis: int, size: float) -> FloatArray:
        """Return the part of every pixel that a centred window of this size covers."""
        low, high = self.centre[axis] - size / 2, self.centre[axis] + size / 2
        edges = np.arange(self.energy.shape[axis] + 1.0)
        parts: FloatArray = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
        return np.maximum(parts, 0.0)


def _first_reaching(sizes: FloatArray, shares: FloatArray, share: float) -> float:
    """Return the smallest size with this share, interpolated linearly."""
    place = int(np.searchsorted(shares, share * (1 - 1e-12)))  # tolerance for rounding of sums
    low, high = shares[place - 1], shares[place]
    part = min(1.0, (share - low) / (high - low))
    return float(sizes[place - 1] + part * (sizes[place] - sizes[place - 1]))
