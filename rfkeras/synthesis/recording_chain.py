"""Simulate how music is recorded: rooms, devices, noise and coding.

`draw_chain` draws the steps, and `Chain.apply` plays a clip through them. All randomness is
in the drawn numbers, so a chain gives the same samples in every process. The length stays,
and only a tape moves notes in time, by at most a tenth of a second in a clip of 10 s.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rfkeras.synthesis.coding import Codec, Coding, LowRate
from rfkeras.synthesis.filters import Band, Kind, check_mono, steep
from rfkeras.synthesis.recording_steps import (
    Clipping,
    Compressor,
    Equaliser,
    Hum,
    Level,
    Limiter,
    Noise,
    Room,
    Samples,
    Tape,
    Wobble,
)

CLEAN_RATE = 0.15
"""Share of clips that stay as they are."""

# Probability of each step in the other clips, in the order of the steps.
STEP_RATES = {
    "room": 0.6,
    "noise": 0.5,
    "hum": 0.12,
    "equaliser": 0.6,
    "compressor": 0.4,
    "limiter": 0.2,
    "clipping": 0.15,
    "tape": 0.2,
    "low_rate": 0.12,
    "coding": 0.5,
}

_MP3_BIT_RATES = (32, 40, 48, 56, 64, 80, 96, 128, 160, 192)
_AAC_BIT_RATES = (24, 32, 48, 64, 80, 96, 128, 160)
_OPUS_BIT_RATES = (12, 16, 24, 32, 48, 64, 96, 128)
_VORBIS_RATES_HZ = (22050, 32000, 44100)
_LOW_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000)

Step = (
    Room
    | Noise
    | Hum
    | Equaliser
    | Compressor
    | Limiter
    | Clipping
    | Tape
    | LowRate
    | Coding
    | Level
)


@dataclass(frozen=True)
class Chain:
    """Steps of a recording, applied in order.

    Attributes:
        steps: The steps; none for a clean recording.
    """

    steps: tuple[Step, ...]

    def to_json(self) -> str:
        """Return the steps and all their numbers as one line of JSON."""
        return json.dumps(
            [{"step": type(step).__name__, **asdict(step)} for step in self.steps]
        )

    def apply(self, waveform: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
        """Return what the recording contains.

        Args:
            waveform: (samples,) mono.
            rate_hz: Sampling rate.

        Returns:
            (samples,), as many as before.

        Raises:
            ValueError: The waveform is not mono.
        """
        check_mono(waveform, "A chain of recording")
        if not waveform.size:
            return waveform
        samples: Samples = waveform
        for step in self.steps:
            samples = step.apply(samples, rate_hz)
        return samples.astype(np.float32)


def draw_chain(rng: random.Random) -> Chain:
    """Draw a chain of recording. Every step has a probability; some clips stay clean.

    Numbers are rounded, so that the line of JSON contains all of their digits.

    Args:
        rng: Source of every choice.
    """
    if rng.random() < CLEAN_RATE:
        return Chain(())
    used = {name for name, rate in STEP_RATES.items() if rng.random() < rate}
    steps: list[Step] = [_DRAW[name](rng) for name in STEP_RATES if name in used]
    return Chain((*steps, Level(_uniform(rng, -40, 0))))


def _draw_room(rng: random.Random) -> Room:
    size_m = _log_uniform(rng, 2.5, 25)
    return Room(
        # Large rooms reverberate for longer.
        rt60_s=round(min(_log_uniform(rng, 0.1, 0.4) * size_m**0.5, 2.5), 3),
        size_m=size_m,
        wet_db=_uniform(rng, -20, 2),
        early=_uniform(rng, 0.2, 0.6),
        bass=_uniform(rng, 0.9, 1.4),
        treble=_uniform(rng, 0.5, 0.9),
        seed=rng.getrandbits(32),
    )


def _draw_noise(rng: random.Random) -> Noise:
    colour: Literal["white", "pink", "brown"] = rng.choice(("white", "pink", "brown"))
    return Noise(colour, _uniform(rng, 15, 60), rng.getrandbits(32))


def _draw_hum(rng: random.Random) -> Hum:
    harmonics = [1.0, *(_uniform(rng, 0.05, 1) / number for number in range(2, 9))]
    return Hum(
        frequency_hz=rng.choice((50, 60)),
        snr_db=_uniform(rng, 20, 55),
        harmonics=tuple(round(amplitude, 3) for amplitude in harmonics),
        phase=_uniform(rng, 0, 2 * math.pi),
    )


def _draw_equaliser(rng: random.Random) -> Equaliser:
    """Draw one to four shelves and peaks; or the curve of a device, in one of four cases."""
    if rng.random() < 0.25:
        return Equaliser(_draw_device(rng))
    bands = []
    for _ in range(rng.randint(1, 4)):
        kind: Kind = rng.choice(("low_shelf", "high_shelf", "peak", "peak"))
        low, high = {"low_shelf": (60, 400), "high_shelf": (1500, 10000), "peak": (100, 8000)}[
            kind
        ]
        q = _log_uniform(rng, 0.5, 3) if kind == "peak" else 0.707
        # The triangle makes strong settings rare.
        gain_db = round(rng.triangular(-12, 12, 0), 3)
        bands.append(Band(kind, _log_uniform(rng, low, high), gain_db, q))
    return Equaliser(tuple(bands))


def _draw_device(rng: random.Random) -> tuple[Band, ...]:
    """Draw the curve of a telephone, a laptop's loudspeaker, or a microphone's low cut."""
    device = rng.choice(("telephone", "laptop", "low_cut", "low_cut"))
    if device == "telephone":
        return (
            *steep("high_pass", _uniform(rng, 250, 400)),
            *steep("low_pass", _uniform(rng, 3000, 4000)),
            Band("peak", _uniform(rng, 1000, 2500), _uniform(rng, 0, 6), 1.0),
        )
    if device == "laptop":
        return (
            *steep("high_pass", _uniform(rng, 150, 400)),
            Band("peak", _uniform(rng, 600, 1500), _uniform(rng, 0, 6), 1.5),
            Band("peak", _uniform(rng, 2000, 5000), _uniform(rng, -6, 6), 2.0),
            Band("low_pass", _uniform(rng, 9000, 15000)),
        )
    return (Band("high_pass", _uniform(rng, 50, 200)),)


def _draw_compressor(rng: random.Random) -> Compressor:
    return Compressor(
        threshold_db=_uniform(rng, -15, 3),
        ratio=_log_uniform(rng, 1.5, 10),
        attack_ms=_log_uniform(rng, 2, 50),
        release_ms=_log_uniform(rng, 50, 800),
    )


def _draw_limiter(rng: random.Random) -> Limiter:
    return Limiter(_uniform(rng, 2, 12), _log_uniform(rng, 10, 150))


def _draw_clipping(rng: random.Random) -> Clipping:
    if rng.random() < 0.2:
        return Clipping("hard", _uniform(rng, 0.5, 6))
    return Clipping("soft", _uniform(rng, -6, 9))


def _draw_tape(rng: random.Random) -> Tape:
    drift, wow, flutter = (8, 0.03, 0.15), (8, 0.4, 2), (4, 5, 12)
    wobbles = tuple(
        Wobble(_uniform(rng, 0, cents), _uniform(rng, low, high), _uniform(rng, 0, 6.283))
        for cents, low, high in (drift, wow, flutter)
    )
    return Tape(_uniform(rng, -25, 25), wobbles)


def _draw_low_rate(rng: random.Random) -> LowRate:
    return LowRate(rng.choice(_LOW_RATES_HZ))


def _draw_coding(rng: random.Random) -> Coding:
    codec: Codec = rng.choice(("mp3", "mp3", "aac", "opus", "vorbis"))
    if codec == "vorbis":
        return Coding(codec, None, rng.choice(_VORBIS_RATES_HZ))
    if codec == "opus":
        return Coding(codec, 1000 * rng.choice(_OPUS_BIT_RATES), 48000)
    rates = _MP3_BIT_RATES if codec == "mp3" else _AAC_BIT_RATES
    return Coding(codec, 1000 * rng.choice(rates), 44100)


_DRAW: dict[str, Callable[[random.Random], Step]] = {
    "room": _draw_room,
    "noise": _draw_noise,
    "hum": _draw_hum,
    "equaliser": _draw_equaliser,
    "compressor": _draw_compressor,
    "limiter": _draw_limiter,
    "clipping": _draw_clipping,
    "tape": _draw_tape,
    "low_rate": _draw_low_rate,
    "coding": _draw_coding,
}


def _uniform(rng: random.Random, low: float, high: float) -> float:
    return round(rng.uniform(low, high), 3)


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return round(math.exp(rng.uniform(math.log(low), math.log(high))), 3)
