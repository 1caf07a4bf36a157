"""How loud a sound is to the ear, and setting a clip's level without clipping."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FRAME_SECONDS = 0.4
_FLOOR_DB = -70.0
_GATE_DB = -10.0
_KNEE = 0.7
_PEAK = 0.97


def k_weighting(frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power response of the K-weighting of ITU-R BS.1770: less bass, more treble."""
    s = 1j * frequency_hz / 1681.97
    high, q = 10 ** (3.99984 / 20), 0.70718
    shelf = (high * s**2 + high**0.49967 * s / q + 1) / (s**2 + s / q + 1)
    r = 1j * frequency_hz / 38.1355
    high_pass = r**2 / (r**2 + r / 0.50033 + 1)
    return np.asarray(np.abs(shelf * high_pass) ** 2)


def gated_loudness(samples: NDArray[np.float32], sample_rate_hz: int) -> float:
    """Loudness of the sounding stretches, in dB below full scale.

    As in BS.1770, frames of 0.4 s are weighted by frequency, silent frames dropped, then
    frames 10 dB under the mean of the rest. Unlike there, the frames do not overlap, and
    the weighting is done on their spectra.

    Args:
        samples: (n,) mono, at least one frame long.
        sample_rate_hz: Sampling rate.

    Returns:
        Decibels, rounded to 0.001; minus infinity for silence.
    """
    length = int(FRAME_SECONDS * sample_rate_hz)
    frames = samples[: len(samples) // length * length].reshape(-1, length)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    weights = k_weighting(np.fft.rfftfreq(length, 1 / sample_rate_hz))
    # No matrix product: its order of summation would hang on the machine's threads.
    energy = 2 * (power * weights).sum(axis=1) / length**2
    energy = energy[energy > 10 ** (_FLOOR_DB / 10)]
    if energy.size == 0:
        return float("-inf")
    energy = energy[energy >= energy.mean() * 10 ** (_GATE_DB / 10)]
    return round(float(10 * np.log10(energy.mean())), 3)


def with_rms(samples: NDArray[np.float64], rms: float) -> NDArray[np.float32]:
    """Scale a clip to a root mean square; peaks over 0.7 bend softly and stay under 0.97.

    Bending takes energy away, so scaling and bending alternate until the level stands.

    Args:
        samples: (n,) mono, not silent.
        rms: Wanted root mean square, well under the peak limit.

    Returns:
        (n,) float32.
    """
    level = rms
    for _ in range(6):
        shaped = samples * (level / np.sqrt(np.mean(samples**2)))
        size = np.abs(shaped)
        bent = _KNEE + (_PEAK - _KNEE) * np.tanh((size - _KNEE) / (_PEAK - _KNEE))
        shaped = np.where(size > _KNEE, np.sign(shaped) * bent, shaped)
        reached = float(np.sqrt(np.mean(shaped**2)))
        if abs(reached / rms - 1) < 1e-3:
            break
        level *= rms / reached
    return np.asarray(shaped, dtype=np.float32)
