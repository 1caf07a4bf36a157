"""Clips without any instrument: silence, noise, weather, machines, birds, own recordings.

A model that has heard music alone finds an instrument in everything. These clips show it
what has none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from rfkeras.audio.io import AudioFormat, read_audio

NEGATIVE_RATE = 0.06
"""Probability that a clip has no instrument."""

FILE_RATE = 0.4
"""Probability that such a clip is an excerpt of a given sound file, if there are some."""

_PEAK = 0.5

Samples = NDArray[np.float64]


def silence(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Return digital silence."""
    del rng, rate_hz
    return np.zeros(samples)


def noise(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Return noise whose power falls by 0 to 8 dB an octave, in a random band."""
    coloured = _coloured(rng, samples, rng.uniform(0, 8))
    if rng.random() < 0.5:
        low_hz = np.exp(rng.uniform(np.log(30), np.log(2000)))
        high_hz = min(low_hz * np.exp(rng.uniform(1, 4)), 0.45 * rate_hz)
        sections = signal.butter(2, (low_hz, high_hz), "bandpass", fs=rate_hz, output="sos")
        coloured = signal.sosfilt(sections, coloured)
    return np.asarray(coloured)


def weather(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Return wind or rain: low noise that swells, and many drops."""
    wind = _coloured(rng, samples, rng.uniform(4, 9)) * _swell(rng, samples, rate_hz, 1.5)
    rate = np.exp(rng.uniform(np.log(5), np.log(2000)))
    drops = (rng.random(samples) < rate / rate_hz) * rng.exponential(1.0, samples)
    centre_hz = rng.uniform(1000, min(6000, 0.4 * rate_hz))
    band = (0.7 * centre_hz, 1.1 * centre_hz)
    sections = signal.butter(1, band, "bandpass", fs=rate_hz, output="sos")
    rain = signal.sosfilt(sections, drops)
    return _scaled(wind) * rng.uniform(0, 1) + _scaled(np.asarray(rain)) * rng.uniform(0, 1)


def engine(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Return a motor: uneven explosions at a wandering speed, and its exhaust."""
    low_hz = np.exp(rng.uniform(np.log(15), np.log(120)))
    speed = low_hz * np.exp(0.3 * _wander(rng, samples, rate_hz, rng.uniform(1, 8)))
    phase = np.cumsum(speed) / rate_hz
    fired = np.diff(np.floor(phase), prepend=0.0) > 0
    pulses = np.zeros(samples)
    pulses[fired] = rng.uniform(0.5, 1.0, int(fired.sum()))
    body = signal.butter(1, rng.uniform(80, 900), fs=rate_hz, output="sos")
    hiss = _coloured(rng, samples, rng.uniform(2, 6))
    return _scaled(np.asarray(signal.sosfilt(body, pulses))) + 0.3 * rng.random() * _scaled(
        hiss
    )


def birds(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Return birds: short calls of quickly sweeping tones between 1.5 and 8 kHz."""
    result = np.zeros(samples)
    for _ in range(int(rng.integers(1, 4))):
        centre_hz = rng.uniform(2000, min(6500, 0.35 * rate_hz))
        sweep = rng.uniform(0.02, 0.5) * rng.choice((-1, 1))
        trill_hz, depth = rng.uniform(5, 60), rng.uniform(0, 0.15)
        length_s, gap_s = rng.uniform(0.03, 0.4), rng.uniform(0.03, 1.5)
        start = rng.uniform(0, 1)
        while start < samples / rate_hz:
            count = min(int(length_s * rate_hz), samples - int(start * rate_hz))
            time = np.arange(count) / rate_hz
            place = time / length_s
            pitch = centre_hz * np.exp(
                sweep * (place - 0.5) + depth * np.sin(2 * np.pi * trill_hz * time)
            )
            call = np.sin(2 * np.pi * np.cumsum(pitch) / rate_hz) * np.sin(np.pi * place) ** 2
            first = int(start * rate_hz)
            result[first : first + count] += call * rng.uniform(0.3, 1.0)
            start += length_s + gap_s * rng.uniform(0.5, 2.0)
    background = _scaled(_coloured(rng, samples, rng.uniform(3, 7)))
    return _scaled(result) + 0.1 * rng.random() * background


KINDS: dict[str, Callable[[np.random.Generator, int, int], Samples]] = {
    "silence": silence,
    "noise": noise,
    "weather": weather,
    "engine": engine,
    "birds": birds,
}


def draw_negative(
    rng: random.Random, files: Sequence[Path], samples: int, rate_hz: int
) -> tuple[NDArray[np.float32], str]:
    """Return a clip without instruments and what it is.

    Args:
        rng: Source of every choice.
        files: Sound files without instruments, such as speech. They are repeated if they are
            shorter than the clip.
        samples: Length of the clip.
        rate_hz: Sampling rate.

    Returns:
        (samples,) mono with a peak of 0.5, unless it is silent; and a kind of KINDS or the
        name of a file.

    Raises:
        AudioError: A file cannot be decoded.
    """
    if files and rng.random() < FILE_RATE:
        path = rng.choice(files)
        return _excerpt(rng, path, samples, rate_hz), path.name
    kind = rng.choice(tuple(KINDS))
    made = KINDS[kind](np.random.default_rng(rng.getrandbits(64)), samples, rate_hz)
    return (_PEAK * _scaled(made)).astype(np.float32), kind


def _excerpt(rng: random.Random, path: Path, samples: int, rate_hz: int) -> NDArray[np.float32]:
    """Return a random excerpt of a file, which is repeated if it is short."""
    whole = np.asarray(read_audio(path, AudioFormat(rate_hz, 1)), np.float64).reshape(-1)
    start = rng.randrange(max(1, len(whole) - samples + 1))
    excerpt = np.resize(whole[start : start + samples], samples)
    return (_PEAK * _scaled(excerpt)).astype(np.float32)


def _coloured(rng: np.random.Generator, samples: int, slope_db: float) -> Samples:
    """Return noise whose power falls by so many decibels an octave, above 20 cycles."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    octave = np.log2(np.maximum(np.arange(len(spectrum)), 20) / 20)
    return np.asarray(np.fft.irfft(spectrum * 10 ** (-slope_db * octave / 20), samples))


def _wander(rng: np.random.Generator, samples: int, rate_hz: int, seconds: float) -> Samples:
    """Return a smooth random curve of about -1 to 1 that turns every few seconds."""
    points = max(4, int(samples / rate_hz / seconds * 2) + 4)
    knots = np.interp(
        np.linspace(0, points - 1, samples), np.arange(points), rng.uniform(-1, 1, points)
    )
    return np.asarray(knots)


def _swell(rng: np.random.Generator, samples: int, rate_hz: int, seconds: float) -> Samples:
    """Return gains between 0.1 and 1 that rise and fall slowly."""
    return np.asarray(0.55 + 0.45 * _wander(rng, samples, rate_hz, seconds))


def _scaled(samples: Samples) -> Samples:
    """Return samples with a peak of 1; silence stays silent."""
    peak = np.max(np.abs(samples), initial=0.0)
    return samples / peak if peak > 0 else samples
