"""One recorded note or hit as samples: where it begins, how loud it is, and how to hold it.

Sounds are kept at the rate of their file, because playing a note resamples it in any case.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio import AudioFormat, probe, read_audio
from rfkeras.errors import AudioError

Samples = NDArray[np.float32]

CACHE_BYTES = 512_000_000
PREROLL_SECONDS = 0.001
"""Samples kept in front of the onset, for a fade-in that leaves the attack as it is."""

_MAX_RATE_HZ = 48000
_ONSET = 0.02  # of the peak: above the pre-echo of lossy codecs
_SILENCE = 1e-5
_FRAME_SECONDS = 0.02
_LOUD_FRAMES = 5
_FADE_SECONDS = 0.06
_ATTACK_SECONDS = 0.15
_SHORTEST_LOOP_SECONDS = 0.25
_STEADY = 0.5  # of the median level

_PITCH_SECONDS = 0.16
_PITCH_RANGE_HZ = (27.0, 4500.0)
_PERIODIC = 0.9
_FIRST_PEAK = 0.95
_SAME_PITCH = 0.5


class Loop(NamedTuple):
    """A part of a sound that can be repeated.

    Attributes:
        start: First sample of the part.
        stop: First sample after it. The crossfade back to the start begins here.
        down: (n,) weights of the samples from `stop` on.
        up: (n,) weights of the samples from `start` on.
        gain: Level of each repetition relative to the one before, at most 1.
    """

    start: int
    stop: int
    down: Samples
    up: Samples
    gain: float


@dataclass(frozen=True, eq=False)
class Sound:
    """A recorded sound without the silence in front of it.

    Attributes:
        samples: (n,) float32, mono. The onset is `preroll` samples after the first.
        rate_hz: Samples per second.
        preroll: Samples in front of the onset.
    """

    samples: Samples
    rate_hz: int
    preroll: int

    @cached_property
    def peak(self) -> float:
        """Largest absolute sample."""
        return float(np.abs(self.samples).max())

    @cached_property
    def loudness(self) -> float:
        """Amplitude of a sine as loud as the loudest 0.1 s."""
        power = self._frame_powers()
        width = min(_LOUD_FRAMES, len(power))
        means = np.convolve(power, np.full(width, 1 / width), mode="valid")
        return float(np.sqrt(2 * means.max()))

    @cached_property
    def loop(self) -> Loop | None:
        """The steady part as a loop; None if the sound has no steady part."""
        return find_loop(self.samples, self.rate_hz, np.sqrt(self._frame_powers()))

    def first(self, count: int) -> Samples:
        """Return the first samples: `count`, or all if there are fewer."""
        return self.samples[:count]

    def held(self, count: int) -> Samples:
        """Return the first samples, with the steady part repeated as often as needed.

        Returns:
            (count,) float32; shorter if the sound has no steady part.
        """
        if count <= len(self.samples) or self.loop is None:
            return self.first(count)
        start, stop, down, up, gain = self.loop
        fade = len(up)
        seam = self.samples[stop : stop + fade] * down
        seam += self.samples[start : start + fade] * (up * np.float32(gain))
        body = np.concatenate((seam, self.samples[start + fade : stop] * np.float32(gain)))
        repeats = -(-(count - stop) // (stop - start))
        levels = np.float32(gain) ** np.arange(repeats, dtype=np.float32)
        held = np.concatenate((self.samples[:stop], np.outer(levels, body).ravel()))
        return np.asarray(held[:count], dtype=np.float32)

    def _frame_powers(self) -> NDArray[np.float32]:
        """Return the mean square of each frame; what is left over belongs to the last."""
        length = int(_FRAME_SECONDS * self.rate_hz)
        starts = np.arange(0, max(1, len(self.samples) - length + 1), length)
        sums = np.add.reduceat(self.samples**2, starts)
        return np.asarray(sums / np.diff(starts, append=len(self.samples)), dtype=np.float32)


def find_loop(samples: Samples, rate_hz: int, levels: NDArray[np.float32]) -> Loop | None:
    """Find two similar places, at the start and at the end of the steady part.

    Args:
        samples: (n,) mono.
        rate_hz: Samples per second.
        levels: (frames,) RMS of each frame of 20 ms.

    Returns:
        The loop, or None if the steady part is shorter than 0.25 s.
    """
    length = int(_FRAME_SECONDS * rate_hz)
    attack = round(_ATTACK_SECONDS / _FRAME_SECONDS)
    if len(levels) <= attack:
        return None
    steady = np.flatnonzero(levels >= _STEADY * np.median(levels[attack:]))
    end = min(int(steady[-1]) * length, len(samples))
    fade = int(_FADE_SECONDS * rate_hz)
    earliest = max(attack * length, end // 4)
    stop = end - fade
    # The start may be anywhere within one fade, which is at least one period of 17 Hz.
    latest = earliest + fade
    if stop - latest < _SHORTEST_LOOP_SECONDS * rate_hz:
        return None
    ending = samples[stop : stop + fade].astype(np.float64)
    beginnings = samples[earliest : latest + fade].astype(np.float64)
    sums = np.cumsum(np.concatenate(([0.0], beginnings**2)))
    energies = np.maximum(sums[fade:] - sums[:-fade], 1e-12)
    products = np.correlate(beginnings, ending, mode="valid")
    best = int(np.argmax(products / np.sqrt(energies)))
    energy = float((ending**2).sum())
    similarity = max(0.0, float(products[best]) / np.sqrt(energies[best] * max(energy, 1e-12)))
    up = np.sin(np.linspace(0, np.pi / 2, fade)) ** 2
    down = 1 - up
    # Equal sounds add their amplitudes and different ones their powers. Either way, the
    # level stays.
    scale = 1 / np.sqrt(up**2 + down**2 + 2 * up * down * similarity)
    return Loop(
        start=earliest + best,
        stop=stop,
        down=(down * scale).astype(np.float32),
        up=(up * scale).astype(np.float32),
        gain=min(1.0, float(np.sqrt(energy / energies[best]))),
    )


def estimate_pitch(sound: Sound) -> float | None:
    """Estimate the pitch by autocorrelation, at two places that must agree.

    Octaves may be wrong, as for an organ with several ranks of pipes. A consonant chord has
    the pitch at which all of it repeats, one or two octaves below.

    Returns:
        A MIDI pitch with a fraction; None for noise, slides, most chords and short sounds.
    """
    length = int(_PITCH_SECONDS * sound.rate_hz)
    start = sound.preroll + length // 2
    room = len(sound.samples) - start - length
    if room < 0:
        return None
    found = []
    for first in (start, start + min(room, length)):
        hertz = _periodicity(sound.samples[first : first + length], sound.rate_hz)
        if hertz is None:
            return None
        found.append(69 + 12 * math.log2(hertz / 440))
    return sum(found) / 2 if abs(found[0] - found[1]) < _SAME_PITCH else None


def _periodicity(samples: Samples, rate_hz: int) -> float | None:
    """Return the frequency at which a signal repeats; None if it does not clearly."""
    window = np.hanning(len(samples))

    def correlation(signal: NDArray[np.float64]) -> NDArray[np.float64]:
        spectrum = np.abs(np.fft.rfft(signal, 2 * len(signal))) ** 2
        lags = np.fft.irfft(spectrum)[: len(signal) // 2]
        return np.asarray(lags / max(lags[0], 1e-12))

    # The window correlates less with itself at longer lags, which is no property of the sound.
    similar = correlation(samples * window) / correlation(window)
    shortest, longest = (int(rate_hz / hertz) for hertz in reversed(_PITCH_RANGE_HZ))
    similar = similar[: longest + 1]
    peaks = np.flatnonzero((similar[1:-1] > similar[:-2]) & (similar[1:-1] >= similar[2:])) + 1
    peaks = peaks[peaks >= shortest]
    if not len(peaks) or similar[peaks].max() < _PERIODIC:
        return None
    # Multiples of the period are as similar, so the first of the high peaks counts.
    peak = int(peaks[similar[peaks] > _FIRST_PEAK * similar[peaks].max()][0])
    left, middle, right = similar[peak - 1 : peak + 2]
    return float(rate_hz / (peak + (left - right) / (left - 2 * middle + right) / 2))


def read_sound(path: Path) -> Sound:
    """Decode a file to mono, without the silence in front of the sound.

    Files above 48 kHz are resampled to 48 kHz.

    Raises:
        AudioError: The file cannot be decoded, or is silent.
    """
    rate_hz = min(probe(path).sample_rate_hz, _MAX_RATE_HZ)
    samples = read_audio(path, AudioFormat(rate_hz))
    size = np.abs(samples)
    peak = float(size.max())
    if peak < _SILENCE:
        raise AudioError(str(path), "it is silent")
    onset = int(np.argmax(size > _ONSET * peak))
    preroll = max(1, round(PREROLL_SECONDS * rate_hz))
    if onset < preroll:
        samples = np.concatenate((np.zeros(preroll - onset, np.float32), samples))
        onset = preroll
    return Sound(np.ascontiguousarray(samples[onset - preroll :]), rate_hz, preroll)


class SoundCache:
    """Decoded sounds in memory. The least recently used ones are dropped first.

    Args:
        max_bytes: Limit of all sounds together. Larger single sounds are not kept.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._sounds: OrderedDict[Path, Sound] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sounds)

    def read(self, path: Path) -> Sound:
        """Return a sound, decoded now or before.

        Raises:
            AudioError: The file cannot be decoded, or is silent.
        """
        with self._lock:
            sound = self._sounds.get(path)
            if sound is not None:
                self._sounds.move_to_end(path)
                return sound
        sound = read_sound(path)
        with self._lock:
            if path not in self._sounds:
                self._sounds[path] = sound
                self._bytes += sound.samples.nbytes
            while self._bytes > self.max_bytes:
                _, dropped = self._sounds.popitem(last=False)
                self._bytes -= dropped.samples.nbytes
        return sound
