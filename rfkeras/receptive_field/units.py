"""Physical units of spectrogram pixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpectrogramScale:
    """What a pixel of a spectrogram is in milliseconds and Hz.

    Attributes:
        sample_rate_hz: Rate of the audio.
        window_samples: Length of the analysis window.
        hop_samples: Samples between two frames.
        n_mels: Mel bands between 0 Hz and half the sample rate.
    """

    sample_rate_hz: int
    window_samples: int
    hop_samples: int
    n_mels: int
