"""Notes about a sound whose level is far from that of music that models are trained on.

Such a sound is tagged all the same, because only the user knows whether it is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import log10, sqrt

import numpy as np

from rfkeras.audio.decode import open_audio
from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.audio.source import Source
from rfkeras.errors import AudioError

# Full scale is 1. Music has an RMS level of -45 to -8 dB, and lossy codecs overshoot to 2.
LOUD_PEAK, LOUD_RMS = 8.0, 1.05
INTEGER_PEAK = 100.0  # such values are integers that nobody divided by their range
SILENT_RMS, SILENT_PEAK = 1e-3, 1e-2  # -60 dB, -40 dB
CLIPPED = (0.96, 1.06)  # resampling and codecs move samples that were clipped at 1
CLIPPED_SHARE = 0.2  # a sine at full scale has 0.18
OFFSET = 0.05
QUIET_OFFSET = 0.01  # if the offset is also larger than the sound
LEAST_SECONDS = 0.5  # the mean of a shorter sound may be that of one low wave
# Two channels that cancel are looked for only in sounds whose mix is quieter than this.
QUIET_MIX_RMS = 0.1
CANCELLED_DB = 12.0
_EXCERPTS, _EXCERPT_SECONDS = 3, 5.0
_INTEGER_BITS = (16, 24, 32)


class LevelMeter:
    """Passes the blocks of a waveform on, and measures their level.

    Args:
        blocks: Consecutive parts of a waveform, (samples,) or (samples, channels).

    Attributes:
        samples: Number of samples so far, per channel.
    """

    def __init__(self, blocks: Iterable[Waveform]) -> None:
        self._blocks = blocks
        self.samples = 0
        self._values = self._clipped = 0
        self._peak = self._total = self._power = 0.0

    def __iter__(self) -> Iterator[Waveform]:
        for block in self._blocks:
            yield block  # first, because the consumer rejects invalid blocks
            self.samples += len(block)
            self._measure(np.ravel(block))

    def _measure(self, values: Waveform) -> None:
        if not values.size:
            return
        size = np.abs(values)
        self._values += values.size
        self._peak = max(self._peak, float(size.max()))
        self._clipped += int(np.count_nonzero((size >= CLIPPED[0]) & (size <= CLIPPED[1])))
        self._total += float(values.sum(dtype=np.float64))
        self._power += float(np.square(values, dtype=np.float64).sum())

    @property
    def rms(self) -> float:
        """Root of the mean square."""
        return sqrt(self._power / max(self._values, 1))

    def notes(self, sample_rate_hz: int) -> tuple[str, ...]:
        """Return one sentence about each thing that is odd; call this after the last block."""
        if not self._values:
            return ()
        if self._peak == 0.0:
            return ("silent: all samples are 0",)
        if self._peak > LOUD_PEAK or self.rms > LOUD_RMS:
            return (self._too_loud(),)
        if self.rms < SILENT_RMS and self._peak < SILENT_PEAK:
            return (
                f"almost silent: RMS {_db(self.rms)}, peak {_db(self._peak)}; music has "
                "an RMS of about -45 to -8 dB",
            )
        notes = []
        share = self._clipped / self._values
        if share > CLIPPED_SHARE:
            notes.append(f"clipped: {share:.0%} of the samples are at full scale")
        offset = self._total / self._values
        sound = sqrt(max(0.0, self.rms**2 - offset**2))
        is_large = abs(offset) > OFFSET or QUIET_OFFSET < abs(offset) > sound
        if is_large and self.samples >= LEAST_SECONDS * sample_rate_hz:
            notes.append(f"constant offset: the mean of the samples is {offset:+.3f} (DC)")
        return tuple(notes)

    def _too_loud(self) -> str:
        text = f"far too loud: peak {self._peak:,.4g}, where full scale is 1"
        if self._peak < INTEGER_PEAK:
            return f"{text}; scale the samples to -1 to 1"
        bits = next((b for b in _INTEGER_BITS if self._peak <= 1.05 * 2 ** (b - 1)), None)
        if bits is None:
            return f"{text}; scale the samples to -1 to 1"
        return (
            f"{text}: these look like {bits}-bit integers; divide the samples by "
            f"{2 ** (bits - 1):,}"
        )


def _db(level: float) -> str:
    return f"{20 * log10(level):.0f} dB"


def cancelling_channels(
    source: Source, sample_rate_hz: int, decoder: str, seconds: float
) -> str | None:
    """Return a sentence if the two channels of a file cancel when they are mixed to mono.

    Three excerpts are compared. They are read once more, with both channels.

    Args:
        source: A path, or the bytes of a file.
        sample_rate_hz: Sample rate to read with.
        decoder: See `rfkeras.audio.decode.open_audio`.
        seconds: Length of the file.
    """
    with (
        suppress(AudioError),
        open_audio(source, AudioFormat(sample_rate_hz, 2), decoder=decoder) as file,
    ):
        if file.info.channels != 2:
            return None
        length = min(round(seconds * sample_rate_hz), file.length)
        count = min(length, round(_EXCERPT_SECONDS * sample_rate_hz))
        starts = np.linspace(0, length - count, _EXCERPTS, dtype=np.int64)
        stereo = np.concatenate([file.read(int(s), count) for s in dict.fromkeys(starts)])
        channels = sqrt(float(np.square(stereo, dtype=np.float64).mean()))
        mixed = sqrt(float(np.square(stereo.mean(axis=1, dtype=np.float64)).mean()))
        if channels < SILENT_RMS or mixed * 10 ** (CANCELLED_DB / 20) > channels:
            return None
        loss = f"{20 * log10(channels / mixed):.0f} dB quieter" if mixed else "silent"
        return (
            f"channels cancel: the mix to mono is {loss}"
            f"{' than the channels' if mixed else ''}; one probably has inverted polarity"
        )
    return None
