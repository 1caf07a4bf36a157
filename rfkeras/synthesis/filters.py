"""Second-order filters of equalisers, loudspeakers and tone stacks, and guitar amplifiers.

The coefficients of the filters are those of Robert Bristow-Johnson's "Cookbook formulae for
audio equalizer biquad filter coefficients".

The amplifiers (tubes that bend the signal, tone controls, a loudspeaker) make crunchy,
distorted and fuzzy guitars of clean recordings. The signal is bent at four times its sampling
rate, so that overtones above the rate do not fold back.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import soxr
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


# Amplifiers of electric guitars

AmplifierKind = Literal["clean", "crunch", "distorted", "fuzz"]
KINDS: tuple[AmplifierKind, ...] = get_args(AmplifierKind)

OVERSAMPLING = 4

# The filter that makes the mean magnitude of the signal.
_SHIFT = (Band("low_pass", 10.0),)


class _Ranges(NamedTuple):
    """Ranges from which `draw_amplifier` draws one kind of amplifier."""

    drive_db: tuple[float, float]
    bias: tuple[float, float]
    middle_db: tuple[float, float]
    treble_limit_hz: tuple[float, float]


_RANGES: dict[AmplifierKind, _Ranges] = {
    "clean": _Ranges((-14, -6), (0.0, 0.2), (-4, 2), (5000, 8000)),
    "crunch": _Ranges((8, 16), (0.1, 0.3), (-2, 5), (4500, 6500)),
    "distorted": _Ranges((20, 28), (0.05, 0.3), (-8, 4), (4000, 6000)),
    "fuzz": _Ranges((29, 33), (0.4, 0.8), (-4, 6), (3500, 5500)),
}


@dataclass(frozen=True)
class Amplifier:
    """A guitar amplifier.

    Attributes:
        kind: "clean", "crunch", "distorted" or "fuzz".
        low_cut_hz: High-pass in front of the tubes.
        drive_db: Peak of the signal relative to the value where the tubes bend it.
        bias: Shift of the tubes' working point, relative to the mean magnitude of the signal,
            which shifts it in real amplifiers too. It makes even overtones at any level.
        tone: Filters of the tone controls.
        loudspeaker: Filters of loudspeaker and cabinet.
    """

    kind: AmplifierKind
    low_cut_hz: float
    drive_db: float
    bias: float
    tone: tuple[Band, ...]
    loudspeaker: tuple[Band, ...]

    def to_json(self) -> str:
        """Return the kind and all numbers as one line of JSON."""
        return json.dumps(asdict(self))

    def bend(self, waveform: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
        """Return the signal behind the tubes, without tone controls and loudspeaker.

        Args:
            waveform: (samples,) clean guitar.
            rate_hz: Sampling rate.

        Returns:
            (samples,), within -1 and 1 but for ripples.
        """
        cut = filter_bands(waveform, [Band("high_pass", self.low_cut_hz)], rate_hz)
        peak = float(np.abs(cut).max())
        cut += self.bias * filter_bands(np.abs(cut), _SHIFT, rate_hz)
        driven = (cut * (10 ** (self.drive_db / 20) / max(peak, 1e-9))).astype(np.float32)
        fine = soxr.resample(driven, rate_hz, OVERSAMPLING * rate_hz)
        coarse = soxr.resample(np.tanh(fine), OVERSAMPLING * rate_hz, rate_hz)[: len(waveform)]
        return np.pad(coarse, (0, len(waveform) - len(coarse)))

    def apply(self, waveform: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
        """Return the amplified guitar with the RMS of the clean one.

        Args:
            waveform: (samples,) clean guitar. A silent one stays as it is.
            rate_hz: Sampling rate.

        Raises:
            ValueError: The waveform is not mono.
        """
        check_mono(waveform, "An amplifier")
        if not waveform.any():
            return waveform
        # The loudspeaker's high-pass removes the constant that one-sided bending leaves.
        bands = (*self.tone, *self.loudspeaker)
        played = filter_bands(self.bend(waveform, rate_hz), bands, rate_hz)
        rms, clean_rms = (
            float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
            for samples in (played, waveform)
        )
        return (played * (clean_rms / max(rms, 1e-9))).astype(np.float32)


def draw_amplifier(rng: random.Random, kind: AmplifierKind | None = None) -> Amplifier:
    """Draw an amplifier.

    Args:
        rng: Source of every choice.
        kind: One of KINDS; None for any of them.

    Raises:
        ValueError: There is no such kind.
    """
    chosen: AmplifierKind = rng.choice(KINDS) if kind is None else kind
    if chosen not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, or None. Received: {kind!r}")
    ranges = _RANGES[chosen]

    def draw(low: float, high: float) -> float:
        return round(rng.uniform(low, high), 3)

    return Amplifier(
        kind=chosen,
        low_cut_hz=draw(60, 160),
        drive_db=draw(*ranges.drive_db),
        bias=draw(*ranges.bias),
        tone=(
            Band("low_shelf", draw(100, 200), draw(-4, 5)),
            Band("peak", draw(500, 900), draw(*ranges.middle_db), draw(0.5, 1.2)),
            Band("high_shelf", draw(1800, 3500), draw(-4, 5)),
        ),
        loudspeaker=(
            *steep("low_pass", draw(*ranges.treble_limit_hz)),
            Band("peak", draw(90, 140), draw(1, 5), draw(1, 2)),
            Band("peak", draw(2000, 3500), draw(0, 6), draw(1, 2)),
            Band("peak", draw(400, 1800), draw(-5, 3), draw(2, 5)),
            Band("high_pass", draw(65, 100)),
        ),
    )
