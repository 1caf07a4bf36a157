"""The front-end's spectrogram by NumPy, for programs without TensorFlow.

`numpy_mel` of a built `Frontend` returns the numbers that `MelSpectrogram` needs. It computes
the same values as the layer, up to float rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_FRAMES_AT_ONCE = 64  # with 256, whose spectra miss the cache, it takes up to twice as long
N_GROUPS = 4  # of `group_bands`; measured: slower with two groups, no faster with eight
_BANDS_AT_ONCE = 32  # neighbouring filters cover nearly the same bins


@dataclass(frozen=True)
class MelSpectrogram:
    """Computes mel spectrograms in dB.

    Attributes:
        n_fft: Points of the Fourier transform; frames are zero-padded to it.
        window_samples: Length of the Hann window.
        hop_samples: Samples between frames.
        min_samples: Shorter audio is padded to this with zeros at its end.
        decibels_first: Whether filters average decibels, not power ("db_then_mel").
        amin: Lowest power.
        range_db: Lowest level relative to the loudest point of the audio; None for no limit.
        filterbank: (n_fft // 2 + 1, bands).
        offset_db: Added to each band, (bands,).
    """

    n_fft: int
    window_samples: int
    hop_samples: int
    min_samples: int
    decibels_first: bool
    amin: float
    range_db: float | None
    filterbank: Array
    offset_db: Array

    def mel_db(self, waveform: Array) -> Array:
        """Return the spectrogram before standardisation.

        Args:
            waveform: (samples,) or (samples, channels), float32 in [-1, 1].

        Returns:
            (frames, bands, channels), float32.
        """
        samples = waveform[:, None] if waveform.ndim == 1 else waveform
        short_by = max(0, self.min_samples - len(samples))
        half = self.window_samples // 2
        samples = np.pad(samples, [(0, short_by), (0, 0)])
        samples = np.pad(samples, [(half, half), (0, 0)], mode="reflect")
        window = self.window_samples
        if window % 2:  # the last frame of a whole number of hops
            samples = np.pad(samples, [(0, 1), (0, 0)])
        frames = np.lib.stride_tricks.sliding_window_view(samples, window, axis=0)
        frames = frames[:: self.hop_samples]
        if self.range_db is None:
            floor = np.float32(self.amin)
        else:
            loudest = max(self._measured(part).max() for part in self._parts(frames))
            ratio = np.float32(10.0 ** (-self.range_db / 10.0))
            floor = max(np.float32(self.amin), np.float32(loudest) * ratio)
        shape = (len(frames), samples.shape[1], len(self.offset_db))
        levels: Array = np.empty(shape, np.float32)
        first = 0
        for part in self._parts(frames):
            if self.decibels_first:
                rows = self._filtered(_decibels(part, floor))
            else:
                rows = _decibels(self._filtered(part), floor)
            levels[first : first + len(rows)] = rows
            first += len(rows)
        levels += self.offset_db
        channels_last: Array = levels.transpose(0, 2, 1)
        return channels_last

    def _parts(self, frames: Array) -> Iterator[Array]:
        """Yield the power of some frames at a time, (frames, channels, bins)."""
        for first in range(0, len(frames), _FRAMES_AT_ONCE):
            windowed = frames[first : first + _FRAMES_AT_ONCE] * self._window
            spectra = np.fft.rfft(windowed, self.n_fft)
            yield (spectra.real**2 + spectra.imag**2).astype(np.float32, copy=False)

    def _measured(self, power: Array) -> Array:
        """Return the values that the floor is relative to."""
        return power if self.decibels_first else self._filtered(power)

    @cached_property
    def _window(self) -> Array:
        return hann_window(self.window_samples)

    @cached_property
    def _groups(self) -> list[tuple[slice, slice, Array]]:
        """Bins, bands and weights of some filters at a time."""
        groups = []
        for first in range(0, self.filterbank.shape[1], _BANDS_AT_ONCE):
            bands = slice(first, first + _BANDS_AT_ONCE)
            used = np.flatnonzero(self.filterbank[:, bands].any(axis=1))
            bins = slice(used[0], used[-1] + 1) if len(used) else slice(0, 1)
            groups.append((bins, bands, np.ascontiguousarray(self.filterbank[bins, bands])))
        return groups

    def _filtered(self, values: Array) -> Array:
        filtered = np.empty((*values.shape[:2], self.filterbank.shape[1]), np.float32)
        for bins, bands, weights in self._groups:
            filtered[..., bands] = values[..., bins] @ weights
        return filtered

    def as_json(self) -> dict[str, Any]:
        """Return the numbers, for a file; of the filters those that are not 0."""
        rows, columns = np.nonzero(self.filterbank)
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            "bins": rows.tolist(),
            "bands": columns.tolist(),
            "weights": self.filterbank[rows, columns].astype(float).tolist(),
            "offset_db": self.offset_db.astype(float).tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MelSpectrogram:
        """Return what `as_json` wrote.

        Raises:
            KeyError, IndexError, ValueError, TypeError: It did not write this.
        """
        offset_db = np.array(values["offset_db"], np.float32)
        filterbank = np.zeros((values["n_fft"] // 2 + 1, len(offset_db)), np.float32)
        filterbank[values["bins"], values["bands"]] = values["weights"]
        return cls(
            **{name: values[name] for name in _NUMBERS},
            filterbank=filterbank,
            offset_db=offset_db,
        )


_NUMBERS = (
    "n_fft",
    "window_samples",
    "hop_samples",
    "min_samples",
    "decibels_first",
    "amin",
    "range_db",
)


def numpy_mel(frontend: Any) -> MelSpectrogram:
    """Return the numbers of a built `Frontend` for NumPy."""
    return MelSpectrogram(
        n_fft=frontend.n_fft,
        window_samples=frontend.window_samples,
        hop_samples=frontend.hop_samples,
        min_samples=frontend.min_samples,
        decibels_first=frontend.order == "db_then_mel",
        amin=float(frontend.amin),
        range_db=frontend.range_db,
        filterbank=np.asarray(frontend.mel.filterbank, np.float32),
        offset_db=np.asarray(frontend.offset_db, np.float32),
    )


def _decibels(power: Array, floor: Any) -> Array:
    # NumPy computes this logarithm several times as fast as that to base 10.
    levels: Array = np.log(np.maximum(power, floor))
    return levels * np.float32(10.0 / np.log(10.0))


def hann_window(samples: int) -> Array:
    """Return the window of `tf.signal.hann_window`: periodic if its length is even."""
    if samples == 1:
        return np.ones(1, np.float32)
    turns = np.arange(samples) / (samples - samples % 2)
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * turns)
    return window.astype(np.float32)


def group_bands(filters: Any, n_groups: int) -> list[tuple[int, int, int, int]]:
    """Divide neighbouring bands into groups that need few multiplications in total.

    Args:
        filters: (bins, bands).
        n_groups: A power of two; fewer groups are made if there are fewer bands.

    Returns:
        (first band, end band, first bin, end bin) of every group; ends are exclusive. The
        bins are those where any filter of the group is non-zero, at least one bin.
    """
    n_bins = len(filters)
    used = filters != 0
    # A filter that lies between two bins is all zeros and does not widen the range.
    lows = np.where(used.any(0), used.argmax(0), n_bins)
    highs = np.where(used.any(0), n_bins - used[::-1].argmax(0), 0)

    def size(a: int, b: int) -> int:
        return (b - a) * max(1, int(highs[a:b].max()) - int(lows[a:b].min()))

    def divide(a: int, b: int, parts: int) -> list[tuple[int, int]]:
        if parts < 2 or b - a < 2:
            return [(a, b)]
        middle = min(range(a + 1, b), key=lambda m: size(a, m) + size(m, b))
        return divide(a, middle, parts // 2) + divide(middle, b, parts // 2)

    groups = []
    for a, b in divide(0, filters.shape[1], n_groups):
        low = min(int(lows[a:b].min()), n_bins - 1)
        groups.append((a, b, low, max(low + 1, int(highs[a:b].max()))))
    return groups
