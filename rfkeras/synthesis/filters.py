"""Second-order filters of equalisers, loudspeakers and tone stacks.

The coefficients are those of Robert Bristow-Johnson's "Cookbook formulae for audio equalizer
biquad filter coefficients".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Kind = Literal["low_shelf", "high_shelf", "peak", "high_pass", "low_pass"]

_HIGHEST = 0.45
"""Highest frequency of a filter, relative to the sampling rate. Higher ones are lowered."""


@dataclass(frozen=True)
class Band:
    """A second-order filter.

    Attributes:
        kind: Shelves and peaks change the level; passes remove what is beyond a frequency.
        frequency_hz: Centre of a peak, half-gain point of a shelf, -3 dB point of a pass.
        gain_db: Gain of a shelf or peak.
        q: Quality: bandwidth of a peak, steepness of the others.
    """

    kind: Kind
    frequency_hz: float
    gain_db: float = 0.0
    q: float = math.sqrt(0.5)


def steep(kind: Kind, frequency_hz: float) -> tuple[Band, Band]:
    """Return a Butterworth high-pass or low-pass of order 4 (24 dB per octave)."""
    return Band(kind, frequency_hz, q=0.5412), Band(kind, frequency_hz, q=1.3066)


def filter_bands(
    waveform: NDArray[np.floating[Any]], bands: Sequence[Band], rate_hz: int
) -> NDArray[np.float64]:
    """Filter a waveform, shape (samples,), with all bands in series."""
    sections = np.array([_coefficients(band, rate_hz) for band in bands])
    # In single precision, filters at a few tens of hertz would be inaccurate.
    filtered: NDArray[np.float64] = signal.sosfilt(sections, waveform.astype(np.float64))
    return filtered


def _coefficients(band: Band, rate_hz: int) -> list[float]:
    """Return the numerator and denominator of a band, normalised to a leading 1."""
    omega = 2 * math.pi * min(band.frequency_hz / rate_hz, _HIGHEST)
    cosine, alpha = math.cos(omega), math.sin(omega) / (2 * band.q)
    gain = 10 ** (band.gain_db / 40)
    if band.kind == "peak":
        b = [1 + alpha * gain, -2 * cosine, 1 - alpha * gain]
        a = [1 + alpha / gain, -2 * cosine, 1 - alpha / gain]
    elif band.kind in ("low_pass", "high_pass"):
        sign = 1 if band.kind == "low_pass" else -1
        edge = 1 - sign * cosine
        b = [edge / 2, sign * edge, edge / 2]
        a = [1 + alpha, -2 * cosine, 1 - alpha]
    else:
        # A high shelf is the mirror of a low shelf.
        sign = 1 if band.kind == "low_shelf" else -1
        up, down, slope = gain + 1, gain - 1, 2 * math.sqrt(gain) * alpha
        b = [
            gain * (up - sign * down * cosine + slope),
            sign * 2 * gain * (down - sign * up * cosine),
            gain * (up - sign * down * cosine - slope),
        ]
        a = [
            up + sign * down * cosine + slope,
            sign * -2 * (down + sign * up * cosine),
            up + sign * down * cosine - slope,
        ]
    return [value / a[0] for value in b + a]


def check_mono(waveform: NDArray[Any], name: str) -> None:
    """Check that a waveform has one channel.

    Args:
        waveform: Any array.
        name: What needs it, for the error.

    Raises:
        ValueError: Its shape is not (samples,).
    """
    if waveform.ndim != 1:
        raise ValueError(
            f"{name} needs a mono waveform of shape (samples,). Received: shape "
            f"{waveform.shape}"
        )
