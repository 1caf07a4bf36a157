"""What `effective_receptive_field` returns: where in its window a model really looks."""

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
    """Energy of the gradient inside the window of one position, on average.

    All figures speak of windows centred on the exact window, of any real size: a pixel that
    such a window covers in part counts in part. Axis 0 is time (pixels are frames), axis 1
    frequency (mel bands).

    Attributes:
        energy: (box time, box frequency) float64, adds up to 1: of all tags together. The
            box is the exact window or, on an axis where that has no limit or reaches over
            the spectrogram at every position, the part of it that lies on the spectrogram.
        tags: The same for each tag that was asked for, each adding up to 1.
        axes: The map's two axes, over the spectrogram: their exact receptive fields.
        offset: First pixel of the box, counted from the window's first, on both axes.
        positions: (time, frequency) of the positions on the map.
        clips: Number of inputs.
        clipped: How many of the positions have windows that reach over the spectrogram's
            border; there the energy is that of the part inside.
        outside_share: Share of all energy that was measured outside of the exact windows:
            0, or the exact receptive field is wrong.
        scale: The spectrogram's units; None if they are not known.
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
        """Exact receptive field along time, in frames; None: without limit."""
        return self.axes[0].field

    @property
    def frequency(self) -> AxisField | None:
        """Exact receptive field along frequency, in mel bands; None: without limit."""
        return self.axes[1].field

    def for_tag(self, tag: str) -> EffectiveField:
        """The field of one tag alone.

        Raises:
            ConfigError: The tag was not asked for.
        """
        if tag not in self.tags:
            if not self.tags:
                raise ConfigError(
                    f"There is no field of tag {tag!r}: none was measured tag by tag. "
                    'Call effective_receptive_field with tags="all", or with their names.'
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
        """Where the box lies on the spectrogram for that position.

        Returns:
            ((first frame, stop), (first band, stop)); it may reach over the border.
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
        """Share of the energy inside a centred window.

        Args:
            window_frames: Its length in frames; None: everything along time.
            window_bands: Its height in mel bands; None: everything along frequency.

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
        """Share of the energy against the size of a centred window, on one axis.

        Args:
            axis: 0 time, 1 frequency. The window is unlimited on the other.

        Returns:
            (sizes, shares): 0, 1, 2, ... pixels up to the whole box, and the share inside
            of each; between two sizes it grows linearly.
        """
        length, middle = self.energy.shape[axis], self.centre[axis]
        sizes = np.arange(np.ceil(2 * max(middle, length - middle)) + 1)
        marginal = self.energy.sum(axis=1 - axis)
        shares = np.array([self._covered(axis, size) @ marginal for size in sizes])
        shares = np.maximum.accumulate(shares / shares[-1])
        return sizes, shares

    def window(self, share: float) -> tuple[float, float]:
        """Size of the smallest centred window that holds a share of the energy.

        Each axis by itself: the window is unlimited on the other.

        Args:
            share: Above 0, at most 1.

        Returns:
            (frames, mel bands), to be compared with the exact receptive field's size.

        Raises:
            ConfigError: The share is out of its range.
        """
        if not 0 < share <= 1:
            raise ConfigError(
                f"A share of the energy is above 0 and at most 1. Received: {share!r}."
            )
        frames, bands = (_first_reaching(*self.curve(axis), share) for axis in (0, 1))
        return frames, bands

    def radius(self, share: float = 0.95) -> tuple[float, float]:
        """Half of that window: (frames, mel bands). Errors as of `window`."""
        frames, bands = self.window(share)
        return frames / 2, bands / 2

    def span_ms(self, frames: float) -> float | None:
        """Audio that so many frames, also parts of one, are computed from, in milliseconds.

        Frames lie a hop apart, and each is computed from a whole analysis window.

        Returns:
            None where the spectrogram's units are not known.
        """
        if self.scale is None:
            return None
        return self.scale.window_ms + max(0.0, frames - 1) * self.scale.hop_ms

    def radius_ms(self, share: float = 0.95) -> float | None:
        """The radius along time as a distance between frames, in milliseconds."""
        return None if self.scale is None else self.radius(share)[0] * self.scale.hop_ms

    def ratio(self, share: float = 0.95) -> tuple[float | None, float | None]:
        """Size of the window that holds the share, over that of the exact field.

        Returns:
            (time, frequency); None on an axis without limit.
        """
        time, frequency = (
            None if axis.field is None else size / axis.field.size
            for axis, size in zip(self.axes, self.window(share), strict=True)
        )
        return time, frequency

    def box_curve(self, steps: int = 100) -> tuple[FloatArray, FloatArray]:
        """Share of the energy in the exact window, shrunk by a factor on both axes at once.

        Returns:
            (factors, shares): steps + 1 factors from 0 to 1.
        """
        factors = np.linspace(0.0, 1.0, steps + 1)
        full = [2 * max(c, n - c) for c, n in zip(self.centre, self.energy.shape, strict=True)]
        shares = [self.share_within(f * full[0], f * full[1]) for f in factors]
        return factors, np.maximum.accumulate(np.array(shares))

    @property
    def standard_deviation(self) -> tuple[float, float]:
        """Root of the energy's second moment about its own mean: (frames, mel bands)."""
        deviations = []
        for axis in (0, 1):
            marginal, at = self.energy.sum(axis=1 - axis), np.arange(self.energy.shape[axis])
            mean = marginal @ at
            deviations.append(float(np.sqrt(marginal @ (at - mean) ** 2)))
        return deviations[0], deviations[1]

    def to_dict(self) -> dict[str, Any]:
        """The figures, without the maps, for JSON."""
        return {
            "exact_frames": None if self.time is None else self.time.size,
            "exact_bands": None if self.frequency is None else self.frequency.size,
            **self._figures(),
            "outside_share": self.outside_share,
            "clips": self.clips,
            "positions": [list(position) for position in self.positions],
            "clipped": self.clipped,
            "tags": {tag: self.for_tag(tag)._figures() for tag in self.tags},
        }

    def _figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for percent in (50, 95):
            frames, bands = self.window(percent / 100)
            figures[f"window_{percent}_frames"] = frames
            figures[f"window_{percent}_bands"] = bands
            figures[f"window_{percent}_ms"] = self.span_ms(frames)
        frames, bands = self.standard_deviation
        return {**figures, "deviation_frames": frames, "deviation_bands": bands}

    def _covered(self, axis: int, size: float) -> FloatArray:
        """Part of every pixel that a centred window of that size covers."""
        low, high = self.centre[axis] - size / 2, self.centre[axis] + size / 2
        edges = np.arange(self.energy.shape[axis] + 1.0)
        parts: FloatArray = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
        return np.maximum(parts, 0.0)


def _first_reaching(sizes: FloatArray, shares: FloatArray, share: float) -> float:
    """The smallest size with that share, linearly between the given ones."""
    place = int(np.searchsorted(shares, share * (1 - 1e-12)))  # less what sums are rounded by
    low, high = shares[place - 1], shares[place]
    part = min(1.0, (share - low) / (high - low))
    return float(sizes[place - 1] + part * (sizes[place] - sizes[place - 1]))
