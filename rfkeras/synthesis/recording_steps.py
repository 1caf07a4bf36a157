"""Steps of a recording: room, noise, equaliser, dynamics, overload, tape and level.

Every step has `apply(waveform, rate_hz)`, which takes and returns samples of shape (samples,),
at least one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, signal

from rfkeras.synthesis.filters import Band, filter_bands

Samples = NDArray[np.floating[Any]]

_QUIETEST = 1e-3
"""RMS of the music, at least, to which levels of noise and hum relate: a silent room hums."""

_BLOCK = 64
"""Samples between two values of a varying gain."""

_LOWEST_NOISE_HZ = 20.0
_CENT = math.log(2) / 1200

_SOUND_M_PER_S = 343.0
_ORDER = 2
"""Reflections at up to so many opposite walls are computed one by one."""

# The decay time changes at these frequencies, in hertz.
_CROSSOVERS_HZ = (250.0, 2000.0, 6000.0)


@dataclass(frozen=True)
class Room:
    """Place the music in a room. The direct sound keeps its time and level.

    Attributes:
        rt60_s: Time in which the reverberation of 250 Hz to 2 kHz decays by 60 dB.
        size_m: Longest side of the room.
        wet_db: Energy of the reverberation relative to the direct sound.
        early: Share of the early reflections in that energy, 0 to 1.
        bass: Decay time below 250 Hz relative to rt60_s.
        treble: Decay time of 2 to 6 kHz relative to rt60_s; its square applies above.
        seed: Seed of proportions, positions and the noise.
    """

    rt60_s: float
    size_m: float
    wet_db: float
    early: float
    bass: float
    treble: float
    seed: int

    def impulse_response(self, rate_hz: int) -> NDArray[np.float32]:
        """Return the response to a unit impulse, shape (samples,); its first sample is 1."""
        rng = np.random.default_rng(self.seed)
        late = self._late(rng, rate_hz)
        early = self._early(rng, rate_hz, len(late))
        response = self.early**0.5 * early + (1 - self.early) ** 0.5 * late
        response *= 10 ** (self.wet_db / 20)
        response[0] += 1
        return np.asarray(response, dtype=np.float32)

    def apply(self, waveform: Samples, rate_hz: int) -> Samples:
        """Return the waveform in the room, without the decay after its end."""
        response = self.impulse_response(rate_hz)[: len(waveform)]
        reverberant: Samples = signal.fftconvolve(waveform.astype(np.float32), response)
        return reverberant[: len(waveform)]

    def _early(
        self, rng: np.random.Generator, rate_hz: int, samples: int
    ) -> NDArray[np.float64]:
        """Return the reflections at the walls of a box, with unit energy.

        Every wall absorbs as much as Sabine's formula asks for the decay time.
        """
        sides = self.size_m * np.array([1.0, rng.uniform(0.55, 0.9), rng.uniform(0.3, 0.55)])
        source, microphone = rng.uniform(0.15, 0.85, (2, 3)) * sides
        volume = sides.prod()
        surface = 2 * volume * (1 / sides).sum()
        absorbed = min(0.161 * volume / (surface * self.rt60_s), 0.95)
        orders = np.array(list(product(range(-_ORDER, _ORDER + 1), repeat=3)))
        # An image at an odd number of walls is mirrored.
        images = orders * sides + np.where(orders % 2, sides - source, source)
        distances = np.sqrt(((images - microphone) ** 2).sum(axis=1))
        direct = distances[len(orders) // 2]
        reflected = np.abs(orders).sum(axis=1)
        amplitudes = (1 - absorbed) ** (reflected / 2) * direct / distances
        delays = np.rint((distances - direct) / _SOUND_M_PER_S * rate_hz).astype(int)
        response = np.zeros(samples)
        heard = (reflected > 0) & (delays > 0) & (delays < samples)
        np.add.at(response, delays[heard], amplitudes[heard])
        return response / max(float(np.sqrt((response**2).sum())), 1e-9)

    def _late(self, rng: np.random.Generator, rate_hz: int) -> NDArray[np.float64]:
        """Return noise whose bands decay at their own rates, with unit energy.

        It starts when sound has crossed the room.
        """
        times = self.rt60_s * np.array([self.bass, 1.0, self.treble, self.treble**2])
        start = int(self.size_m / _SOUND_M_PER_S * rate_hz)
        size = fft.next_fast_len(int(times.max() * rate_hz), real=True)
        spectrum = fft.rfft(rng.standard_normal(size, dtype=np.float32))
        frequencies = np.fft.rfftfreq(size, 1 / rate_hz)
        seconds = np.arange(size) / rate_hz
        edges = np.searchsorted(frequencies, (0.0, *_CROSSOVERS_HZ, rate_hz))
        tail = np.zeros(size)
        for low, high, time in zip(edges[:-1], edges[1:], times, strict=True):
            band = np.zeros_like(spectrum)
            band[low:high] = spectrum[low:high]
            tail += fft.irfft(band, size) * np.exp(-np.log(1000.0) / time * seconds)
        tail /= np.sqrt((tail**2).sum())
        return np.concatenate([np.zeros(start), tail])


@dataclass(frozen=True)
class Noise:
    """Add noise.

    Attributes:
        colour: "white", "pink" (-3 dB per octave) or "brown" (-6 dB per octave).
        snr_db: RMS of the music relative to that of the noise.
        seed: Seed of the noise.
    """

    colour: Literal["white", "pink", "brown"]
    snr_db: float
    seed: int

    def apply(self, waveform: Samples, rate_hz: int) -> Samples:
        """Return the waveform with noise."""
        size = fft.next_fast_len(len(waveform), real=True)
        noise = np.random.default_rng(self.seed).standard_normal(size, dtype=np.float32)
        slope = {"white": 0.0, "pink": -0.5, "brown": -1.0}[self.colour]
        if slope:
            frequencies = np.maximum(np.fft.rfftfreq(size, 1 / rate_hz), _LOWEST_NOISE_HZ)
            spectrum = fft.rfft(noise) * (frequencies**slope).astype(np.float32)
            spectrum[0] = 0
            noise = fft.irfft(spectrum, size)
        noise = noise[: len(waveform)]
        level = _reference(waveform) * 10 ** (-self.snr_db / 20)
        noise *= level / max(_rms(noise), 1e-12)
        noisy: Samples = np.add(waveform, noise)
        return noisy


@dataclass(frozen=True)
class Hum:
    """Add the hum of the mains.

    Attributes:
        frequency_hz: 50 or 60.
        snr_db: RMS of the music relative to that of the hum.
        harmonics: Relative amplitudes of the fundamental and its multiples.
        phase: Phase of the hum, in radians.
    """

    frequency_hz: int
    snr_db: float
    harmonics: tuple[float, ...]
    phase: float

    def apply(self, waveform: Samples, rate_hz: int) -> Samples:
        """Return the waveform with hum."""
        angle = 2 * np.pi * self.frequency_hz / rate_hz * np.arange(rate_hz) + self.phase
        rms = math.sqrt(sum(amplitude**2 for amplitude in self.harmonics) / 2)
        level = _reference(waveform) * 10 ** (-self.snr_db / 20) / rms
        hum = np.zeros(rate_hz)
        for number, amplitude in enumerate(self.harmonics, start=1):
            hum += level * amplitude * np.sin(number * angle)
        # A second is a whole number of periods, so it repeats.
        return np.add(waveform, np.resize(hum, len(waveform)))


@dataclass(frozen=True)
class Equaliser:
    """Change the balance of low and high tones, or imitate a small device.

    Attributes:
        bands: Filters in series.
    """

    bands: tuple[Band, ...]

    def apply(self, waveform: Samples, rate_hz: int) -> Samples:
        """Return the filtered waveform."""
        return filter_bands(waveform, self.bands, rate_hz)


@dataclass(frozen=True)
class Compressor:
    """Reduce the level of loud passages.

    Attributes:
        threshold_db: Level at which it starts, relative to the RMS of the clip.
        ratio: Decibels at the input for each decibel at the output above the threshold.
        attack_ms: Time constant when the level rises.
        release_ms: Time constant when the level falls.
    """

    threshold_db: float
    ratio: float
    attack_ms: float
    release_ms: float

    def apply(self, waveform: Samples, rate_hz: int) -> Samples:
        """Return the compressed waveform, without make-up gain."""
        powers = np.mean(_blocks(waveform) ** 2, axis=1)
        threshold = _reference(waveform) * 10 ** (self.threshold_db / 20)
        over = 10 * np.log10(np.maximum(powers / threshold**2, 1e-12))
        attack, release = (
            math.exp(-_BLOCK / rate_hz * 1000 / time)
            for time in (self.attack_ms, self.release_ms)
        )
        smooth, level = [], max(float(over[0]), 0.0)
        for value in np.maximum(over, 0.0).tolist():
            level = value + (level - value) * (attack if value > level else release)
            smooth.append(level)
        gains = 10 ** (np.array(smooth) * (1 / self.ratio - 1) / 20)
        return waveform * _interpolated(gains, len(waveform))


@dataclass(frozen=True)
class Limiter:
    """Lower the peaks without bending them, by looking ahead.

    Attributes:
        reduction_db: The ceiling lies so far below the peak of the clip.
        release_ms: Time for which the gain stays low around a peak.
    """

    reduction_db: float
    release_ms: float

    def apply(self, waveform: Samples, rate_hz: int) -> Samples:
        """Return the limited waveform; no sample exceeds the ceiling."""
        peaks = np.abs(_blocks(waveform)).max(axis=1)
        ceiling = peaks.max() * 10 ** (-self.reduction_db / 20)
        gains = ceiling / np.maximum(peaks, max(ceiling, 1e-12))
        # The mean of minima over the same width is nowhere above the gain that is needed;
        # two blocks more make up for the interpolation.
        width = 2 * round(self.release_ms * rate_hz / 2000 / _BLOCK) + 1
        gains = ndimage.minimum_filter1d(gains, width + 2, mode="nearest")
        gains = ndimage.uniform_filter1d(gains, width, mode="nearest")
        return waveform * _interpolated(gains, len(waveform))


@dataclass(frozen=True)
class Clipping:
    """Overload a stage.

    Attributes:
        kind: "soft" bends towards a limit (tanh), "hard" cuts there.
        drive_db: Peak of the clip relative to the limit.
    """

    kind: Literal["soft", "hard"]
    drive_db: float

    def apply(self, waveform: Samples, rate_hz: int) -> Samples:
        """Return the overloaded waveform. The level of soft passages stays."""
        peak = float(np.abs(waveform).max(initial=0.0))
        if peak == 0:
            return waveform
        limit = peak * 10 ** (-self.drive_db / 20)
        bent = waveform / limit
        bent = np.clip(bent, -1, 1) if self.kind == "hard" else np.tanh(bent)
        return np.asarray(bent * limit)


@dataclass(frozen=True)
class Wobble:
    """A periodic change of pitch: its depth in cents, frequency in hertz, and phase."""

    cents: float
    frequency_hz: float
    phase: float


@dataclass(frozen=True)
class Tape:
    """Play at a wrong and varying speed. The middle of the clip keeps its time.

    Attributes:
        detune_cents: Constant change of pitch.
        wobbles: Drift, wow and flutter.
    """

    detune_cents: float
    wobbles: tuple[Wobble, ...]

    def apply(self, waveform: Samples, rate_hz: int) -> Samples:
        """Return the waveform at that speed; missing samples at an end are mirrored."""
        seconds = np.arange(len(waveform)) / rate_hz
        shift = self.detune_cents * _CENT * (seconds - seconds[-1] / 2)
        for wobble in self.wobbles:
            omega = 2 * np.pi * wobble.frequency_hz
            depth = wobble.cents * _CENT / omega
            shift -= depth * np.cos(omega * seconds + wobble.phase)
        positions = (seconds + shift) * rate_hz
        played: Samples = ndimage.map_coordinates(
            waveform, [positions], order=3, mode="mirror", output=np.float32
        )
        return played


@dataclass(frozen=True)
class Level:
    """Set the level.

    Attributes:
        peak_db: Peak of the clip, relative to full scale.
    """

    peak_db: float

    def apply(self, waveform: Samples, rate_hz: int) -> Samples:
        """Return the waveform at that level; silence stays."""
        peak = float(np.abs(waveform).max(initial=0.0))
        return waveform * (10 ** (self.peak_db / 20) / peak) if peak > 0 else waveform


def _rms(waveform: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def _reference(waveform: Samples) -> float:
    """Return the RMS to which levels relate."""
    return max(_rms(waveform), _QUIETEST)


def _blocks(waveform: Samples) -> Samples:
    """Return the waveform in blocks, the last one repeated to full length by its last value."""
    return np.pad(waveform, (0, -len(waveform) % _BLOCK), mode="edge").reshape(-1, _BLOCK)


def _interpolated(gains: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return gains of blocks as gains of samples, shape (length,)."""
    centres = (np.arange(len(gains)) + 0.5) * _BLOCK
    return np.interp(np.arange(length), centres, gains)
