"""What the model wants to hear, what a file holds, and the arithmetic between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class AudioFormat:
    """What the model wants to hear.

    Args:
        sample_rate_hz: Samples a second, 22050 for example.
        channels: 1 (mono) or 2 (stereo).

    Raises:
        ConfigError: Another number of channels, or a rate that is not positive.
    """

    sample_rate_hz: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.channels not in (1, 2):
            raise ConfigError(f"Audio has 1 or 2 channels. Received: {self.channels}.")
        if self.sample_rate_hz <= 0:
            raise ConfigError(
                f"The sample rate must be positive, in Hz. Received: {self.sample_rate_hz}."
            )

    def samples(self, seconds: float) -> int:
        """Samples in that time, rounded to the nearest."""
        return round(seconds * self.sample_rate_hz)

    def shape(self, samples: int) -> tuple[int, ...]:
        """Shape of a waveform: (samples,) for mono, (samples, 2) for stereo."""
        return (samples,) if self.channels == 1 else (samples, self.channels)


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds: rate, channels, frames (samples a channel), length, container."""

    sample_rate_hz: int
    channels: int
    frames: int
    duration_seconds: float
    container: str


def resampled_length(frames: int, from_hz: int, to_hz: int) -> int:
    """Samples after resampling: frames * to_hz / from_hz, halves rounded up."""
    return (2 * frames * to_hz + from_hz) // (2 * from_hz)


def to_channels(samples: Waveform, channels: int) -> Waveform:
    """Mix (frames, any number of channels) to (frames,) or (frames, 2).

    Mono is the mean of all channels. Stereo from mono is that channel twice; stereo from
    more than two channels is the mean of all of them twice, because which speaker a
    channel belongs to is not recorded reliably.
    """
    if channels == 2 and samples.shape[1] == 2:
        return samples
    mono = _mean(samples)
    return mono if channels == 1 else np.stack([mono, mono], axis=1)


def _mean(samples: Waveform) -> Waveform:
    """The mean of all channels; of one, that channel itself."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    if samples.shape[1] == 2:
        # Bit for bit what `mean` gives, in a tenth of its time: that takes longer for two
        # channels than decoding a WAV file does.
        return (samples[:, 0] + samples[:, 1]) / np.float32(2.0)
    mixed: Waveform = samples.mean(axis=1, dtype=np.float32)
    return mixed
